"""All signals of the ranker. A new one is a module beside this and a line in `SIGNALS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.signals import cold, content, repeat, texts, transitions, trend, walk
from model.signals.data import SignalData
from model.signals.imputation import imputed
from service.artifact.signal_files import COLD, ITEM_CF, POPULARITY, SignalPart

TEXTS = "texts"

# What each signal is fitted to, by name; None where the data have nothing for it.
SIGNALS: Mapping[str, Callable[[SignalData], SignalPart | None]] = {
    ITEM_CF: lambda data: data.item_cf,
    "transitions": transitions.fit,
    "walk": walk.fit,
    "content": content.fit,
    TEXTS: texts.fit,
    "repeat": repeat.fit,
    POPULARITY: lambda data: data.popularity,
    "trend": trend.fit,
    COLD: cold.fit,
}
# Signals that need no events of an item. All others take those of items with similar content for items without any.
OF_CONTENT = frozenset({"content", "texts", COLD})


def fit_signals(data: SignalData) -> dict[str, SignalPart]:
    """Fits every signal that the data have something for. Deterministic.

    Items without events take part in all of them, through the items with events that their content is like.

    Returns:
        What the signals were fitted to, by name, in the order of `SIGNALS`.
    """
    fitted = {name: part for name, fit in SIGNALS.items() if (part := fit(data)) is not None}
    if not len(data.cold):
        return fitted
    return {name: part if name in OF_CONTENT else imputed(part, data.cold) for name, part in fitted.items()}
