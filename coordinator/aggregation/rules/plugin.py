"""Aggregation rule of another package: an entry point of the group `fccl.aggregators`.

It is called in the coordinator's process. What it raises, and a version that does not fit, stop the
run with an error that names it. docs/extending.md has an example.
"""

from __future__ import annotations

from common.errors import FcclError, RunError
from common.protocol.layout import TensorLayout
from coordinator.aggregation.rules.rule import Result, Rule, Step


class PluginRule:
    """Rule that checks what a plug-in returns."""

    def __init__(self, name: str, rule: Rule) -> None:
        self._name, self._rule = name, rule

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        try:
            return self._rule.update_layout(layout, client_id)
        except Exception as error:
            raise self._failed(error) from None

    def apply(self, step: Step) -> Result:
        layout = TensorLayout.of(step.current)
        try:
            result = self._rule.apply(step)
            found = TensorLayout.of(result.tensors)
        except FcclError:  # of an update that cannot be read
            raise
        except Exception as error:
            raise self._failed(error) from None
        values = (*result.tensors.values(), *result.state.values())
        if found != layout or any(tensor.dtype != "float32" for tensor in values):
            raise RunError(
                f"the aggregation rule {self._name} returned other tensors than those of the"
                " version before",
                "repair the plug-in: names, shapes, order and float32 must stay; then --resume",
            )
        return result

    def _failed(self, error: Exception) -> RunError:
        return RunError(
            f"the aggregation rule {self._name} failed ({type(error).__name__}: {error})",
            "repair the plug-in, then --resume",
        )
