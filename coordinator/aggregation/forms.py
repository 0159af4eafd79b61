"""Forms in which the versions of a run travel to its clients, by the aggregation rule.

`factor` sends whole versions, `ffa` leaves out the factors A, and `product` gives clients with a
lower rank the leading components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from common.config.config import FederationConfig
from common.protocol.adapter_form import AdapterForm
from common.protocol.tasks import RefactoredRanks

NO_RANKS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class AdapterForms:
    """Forms of one run.

    Attributes:
        frozen: The factors A do not travel.
        ranks: Ranks of clients, where they are below that of the versions.
        refactored: Whether versions are factorised anew, and whether clients have ranks of their
            own.
    """

    frozen: bool = False
    ranks: Mapping[str, int] = field(default_factory=lambda: NO_RANKS)
    refactored: RefactoredRanks | None = None

    @property
    def common(self) -> AdapterForm:
        """The form for clients without a rank of their own."""
        return AdapterForm(frozen=self.frozen)

    @property
    def lower_ranks(self) -> tuple[int, ...]:
        """Ranks below that of the versions, in ascending order."""
        return tuple(sorted(set(self.ranks.values())))

    def of(self, client_id: str) -> AdapterForm:
        rank = self.ranks.get(client_id)
        return self.common if rank is None else AdapterForm(rank=rank)


def adapter_forms(config: FederationConfig) -> AdapterForms:
    """Return the forms of a run."""
    rule, lora = config.aggregation.rule, config.model.lora
    if rule == "ffa":
        return AdapterForms(frozen=True)
    if rule != "product" or lora is None:
        return AdapterForms()
    lower = {name: rank for name, rank in config.model.ranks.items() if rank < lora.r}
    return AdapterForms(ranks=lower, refactored="mixed" if lower else "equal")
