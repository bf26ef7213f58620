"""All signals of the ranker. A new one is a module beside this and a line in `SIGNALS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.signals import content, repeat, texts, transitions, trend, walk
from model.signals.data import SignalData
from service.artifact.signal_files import ITEM_CF, POPULARITY, SignalPart

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
}


def fit_signals(data: SignalData) -> dict[str, SignalPart]:
    """Fits every signal that the data have something for. Deterministic.

    Returns:
        What the signals were fitted to, by name, in the order of `SIGNALS`.
    """
    fitted = {name: fit(data) for name, fit in SIGNALS.items()}
    return {name: part for name, part in fitted.items() if part is not None}
