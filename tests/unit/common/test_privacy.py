"""ε of clients: known values, composition, and what is shown to people."""

from __future__ import annotations

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from common import privacy
from common.config.config import PrivacyConfig
from common.config.effect import check_effect
from common.config.loader import parse
from common.errors import ConfigError
from common.privacy import NOT_COVERED, epsilon, spending_of

SETTINGS = PrivacyConfig(clip_norm=0.5, noise_multiplier=2.0, delta=1e-5, max_versions=8)


@pytest.mark.parametrize(
    ("noise", "delta", "expected"),
    [
        (1.0, 1e-5, 4.3772),  # the Gaussian mechanism of Balle & Wang, 2018
        (1.0, 0.126936737, 1.0),  # μ = 1 of Dong, Roth & Su, 2022: δ(1) = Φ(−½) − e Φ(−3⁄2)
        (3.7304, 1e-5, 1.0),  # the noise that ε = 1 takes; √(2 log 1.25/δ) would be 4.84
    ],
)
def test_one_version_has_the_published_epsilon(noise: float, delta: float, expected: float) -> None:
    assert epsilon(noise, 1, delta) == pytest.approx(expected, abs=2e-4)


def test_four_versions_cost_as_much_as_one_with_half_the_noise() -> None:
    assert epsilon(2.0, 4, 1e-5) == pytest.approx(epsilon(1.0, 1, 1e-5))


def test_composition_agrees_with_the_general_accountants() -> None:
    event, exact = dp_accounting.GaussianDpEvent(3.0), epsilon(3.0, 20, 1e-6)
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    numeric = PLDAccountant(relation).compose(event, 20).get_epsilon(1e-6)
    bound = RdpAccountant(neighboring_relation=relation).compose(event, 20).get_epsilon(1e-6)
    assert exact == pytest.approx(numeric, rel=1e-3)
    assert exact < bound < 1.2 * exact


def test_nothing_is_spent_before_the_first_version() -> None:
    spent = spending_of(SETTINGS, 0, 10)
    assert spent is not None and spent.epsilon == 0.0


def test_spending_is_limited_by_the_plan_and_by_the_cap() -> None:
    early, late = spending_of(SETTINGS, 2, 3), spending_of(SETTINGS, 2, 30)
    assert early is not None and late is not None
    assert (early.versions_at_end, late.versions_at_end) == (5, 8)
    assert early.epsilon == late.epsilon == pytest.approx(epsilon(2.0, 2, 1e-5))
    assert early.epsilon_at_cap == late.epsilon_at_end == late.epsilon_at_cap
    assert late.text() == (
        "ε ≤ 2.94 now, 6.57 at the end, 6.57 at the cap of 8 versions; δ 1e-05;"
        " most exposed client: 2 versions"
    )


def test_without_clip_norm_there_is_nothing_to_account_for() -> None:
    assert spending_of(PrivacyConfig(), 2, 3) is None


def test_clipping_without_noise_is_no_privacy() -> None:
    spent = spending_of(PrivacyConfig(clip_norm=1.0, noise_multiplier=0.0), 2, 3)
    assert spent is not None and spent.epsilon is None
    assert spent.text().startswith("none: ")


def test_what_is_not_covered_is_named() -> None:
    assert all(word in NOT_COVERED for word in ("losses", "counts", "evaluation sums"))


def test_without_the_library_viewers_say_so_and_new_runs_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(privacy.importlib.util, "find_spec", lambda name: None)
    spent = spending_of(SETTINGS, 2, 3)
    assert spent is not None and not spent.computed and "fccl[dp]" in spent.text()
    with pytest.raises(ConfigError, match=r"pip install 'fccl\[dp\]'"):
        check_effect(parse({"privacy": {"clip_norm": 1.0}}, "test"))
