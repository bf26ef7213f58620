"""One guard for each thing that answers: a bad arm of an experiment opens its own breaker, and no other's. Pure.

What answers is a model with its policies and ranker weights. An arm that changes nothing is answered by what answers
everybody, and shares its guard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from service.guard.guard import Guard

# More than eight experiments of four arms make up in practice; the least recently used goes first.
_MOST = 64


class Variant(NamedTuple):
    """What answers; None for each part that is as for everybody.

    Attributes:
        model: Version of the model.
        policies: Digest of the policies.
        ranker: Group of the ranker weights.
    """

    model: str | None = None
    policies: str | None = None
    ranker: str | None = None

    def named(self) -> dict[str, str]:
        """Returns the parts that are not as for everybody, by name."""
        return {name: part for name, part in self._asdict().items() if part is not None}


AS_FOR_EVERYBODY = Variant()


class Guards:
    """The guards of all variants.

    Args:
        everybody: Guards what answers everybody.

    Attributes:
        everybody: The same.
    """

    def __init__(self, everybody: Guard) -> None:
        self.everybody = everybody
        self._beside: OrderedDict[Variant, Guard] = OrderedDict()

    def of(self, variant: Variant) -> Guard:
        """Returns the guard of a variant; a new one if there is none."""
        if variant == AS_FOR_EVERYBODY:
            return self.everybody
        guard = self._beside.get(variant)
        if guard is None:
            guard = self._beside[variant] = self.everybody.beside()
            if len(self._beside) > _MOST:
                self._beside.popitem(last=False)
        self._beside.move_to_end(variant)
        return guard

    def beside(self) -> Iterator[tuple[Variant, Guard]]:
        """Yields the guards other than everybody's."""
        yield from list(self._beside.items())

    def status(self, variant: Variant) -> dict[str, Any]:
        """Returns the breaker and the budgets of a variant, as operators see them."""
        guard = self.everybody if variant == AS_FOR_EVERYBODY else self._beside.get(variant)
        if guard is None:
            return {"state": "closed", "model_share": 1.0, "cause": None, "burn_rate": None}
        told = guard.status()
        budgets = told["budgets"]
        return {
            "state": told["breaker"],
            "model_share": budgets["model_share"],
            "cause": budgets["cause"],
            "burn_rate": guard.breaker.budgets.burn_rates(),
        }

    def keep_only(self, answers: Callable[[Variant], bool]) -> None:
        """Drops the guards of variants that answer nobody any more."""
        for variant in [variant for variant in self._beside if not answers(variant)]:
            del self._beside[variant]

    def model_changed(self) -> None:
        """Judges afresh what answers with the model in service."""
        self.everybody.model_changed()
        for variant, guard in self._beside.items():
            if variant.model is None:
                guard.model_changed()
