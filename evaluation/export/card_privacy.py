"""Sections of a model card about limits and privacy: what was simulated, and what left a site.

Every sentence must be true of the run at hand: of one whose rows the coordinator dealt, of one
whose rows all stayed at invited sites, and of one that had both.
"""

from __future__ import annotations

from common.config.config import FederationConfig
from common.privacy import NOT_COVERED, PrivacySpending
from common.run_directory.recorded_run import RecordedRun
from evaluation.export.card_participants import find_participants

_LIMITS = """\
A research model. It inherits the errors and biases of the base model, it has learned from these
clients' rows alone, and nobody has checked its answers for truth or safety. {weights} Licence and
intended use are those of the base model and of the clients' data; whoever publishes this model has
to name them."""

_WEIGHTS = {
    "train": "figures that clients report",
    "holdout": "figures that clients report",
    "server": "held-out rows of the coordinator",
    "federated": "evaluations by other clients",
    "cosine": "the agreement of updates with each other",
}

_SIMULATED = """\
{who} simulated: the coordinator's machine had all of their rows and dealt them out, so that these
rows were not private. The simulated clients sent what clients of other organisations would send."""

_SITES = """\
What never left the invited sites: all of their rows, those that were learned from and those that
versions were evaluated on. The coordinator {had}."""

_SENT = """\
What was sent to the coordinator: changes of the trained weights, {codec}; with each of them the
number of rows, tokens and steps, mean losses, the norm of the change, and times; the number of
training rows of each kind;{sums} and the state of the workers (names of machines, device, software,
progress, messages, and figures about live input).{shared}"""

_MEMORY = """\
That does not prove that the model remembers none of the rows: {noise} and
updates were not aggregated under encryption, so that the coordinator could read each of them, and
anyone who has this model can query it. Do not publish it if its answers could harm a client."""

_PRIVATE = """\
Differential privacy of clients up to this version: {spent}. Changes were scaled down to a norm of
{norm:g}, and their sums have Gaussian noise of {noise:g} times that norm. ε bounds how much more
likely this model is than if all changes of any one client had been zero: the smaller, the better.
{not_covered}, the choice of this version where they decided it, and times. The coordinator read
each change before the noise. A client is a name in this run, which need not be a person."""


def build_limits_section(run: RecordedRun) -> str:
    aggregation = run.config.aggregation
    source, mode = aggregation.contribution_source, aggregation.contribution_mode
    weights = _WEIGHTS["train" if mode in ("size", "uniform") else source]
    if mode == "combined" and weights != _WEIGHTS["train"]:
        weights += ", and on numbers of rows that clients report"
    text = _LIMITS.format(weights=f"Contribution weights rest on {weights}.")
    return " ".join(text.split())


def build_privacy_section(run: RecordedRun, version: int) -> str:
    who, config = find_participants(run, version), run.config
    parts = []
    if who.dealt:
        subject = "Some clients were" if who.invited else "The clients were"
        parts.append(_SIMULATED.format(who=subject))
    if who.invited or not who.dealt:
        parts.append(_SITES.format(had=_held(config)))
    sums = " sums over evaluated rows (of losses, tokens and right answers);"
    shared = (
        " In order to be scored, changes were also sent to other clients whose sites had agreed."
        if config.aggregation.contribution_source == "federated"
        else ""
    )
    sent = _SENT.format(
        codec=f"as {config.codec.update}", sums=sums if run.evaluations else "", shared=shared
    )
    parts += [sent, _memory(run.privacy(version))]
    return "\n\n".join(" ".join(part.split()) for part in parts)


def _memory(spent: PrivacySpending | None) -> str:
    if spent is None:
        return _MEMORY.format(noise="no differential privacy was used")
    if spent.noise_multiplier == 0:
        return _MEMORY.format(noise="changes were scaled down, but no noise was added")
    return _PRIVATE.format(
        spent=spent.text(),
        norm=spent.clip_norm,
        noise=spent.noise_multiplier,
        not_covered=NOT_COVERED.capitalize(),
    )


def _held(config: FederationConfig) -> str:
    if not config.sites_only:
        return "had rows of its own, but none of these"
    if config.evaluation.rows is None:
        return "had no row at all"
    return "had held-out rows of its own, on which no client trained, but none of these"
