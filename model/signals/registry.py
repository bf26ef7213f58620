"""All signals of the ranker. A new one is a module beside this and a line in `SIGNALS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.signals import cold, content, repeat, repurchase, texts, transitions, trend, vectors, walk
from model.signals.data import SignalData
from model.signals.imputation import imputed
from service.artifact.scorers.signal_files import COLD, ITEM_CF, POPULARITY, SignalPart

TEXTS, VECTORS = "texts", "vectors"

# What each signal is fitted to, by name; None where the data have nothing for it.
SIGNALS: Mapping[str, Callable[[SignalData], SignalPart | None]] = {
    ITEM_CF: lambda data: data.item_cf,
    "transitions": transitions.fit,
    "walk": walk.fit,
    "content": content.fit,
    TEXTS: texts.fit,
    VECTORS: vectors.fit,
    "repeat": repeat.fit,
    "repurchase": repurchase.fit,
    POPULARITY: lambda data: data.popularity,
    "trend": trend.fit,
    COLD: cold.fit,
}
# Signals that need no events of an item. All others take those of items with similar content for items without any.
OF_CONTENT = frozenset({"content", TEXTS, VECTORS, COLD})


def fit_signals(data: SignalData) -> dict[str, SignalPart]:
    """Fits every signal that the data have something for. Deterministic.

    Returns:
        What the signals were fitted to, by name, in the order of `SIGNALS`.
    """
    return {name: part for name in SIGNALS if (part := fit_signal(name, data)) is not None}


def fit_signal(name: str, data: SignalData) -> SignalPart | None:
    """Fits one signal; None if the data have nothing for it.

    Items without events have their place in it, through the items with events whose content is like theirs.

    Raises:
        KeyError: There is no such signal.
    """
    part = SIGNALS[name](data)
    if part is None or name in OF_CONTENT or not len(data.cold):
        return part
    return imputed(part, data.cold)
