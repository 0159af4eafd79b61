"""Rule `ffa`: the factors A stay as version 0 has them, and only B and a head are averaged.

With one A for all, the mean of Bᵢ A is the product of the mean of Bᵢ with A: the sum is exact and
linear, so that server optimizers, robust rules and noise act on the model itself. Updates and
versions have about half the bytes.

Source: FFA-LoRA (Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024).
"""

from __future__ import annotations

from common.protocol.adapter_form import AdapterForm
from common.protocol.layout import TensorLayout
from coordinator.aggregation.rules.factor import FactorRule


class FfaRule(FactorRule):
    """Sum of the factors B and the head; what no update has stays as it is."""

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        return AdapterForm(frozen=True).layout(layout)
