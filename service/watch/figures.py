"""The figures of a window. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from service.watch.item_groups import BANDS
from service.watch.statistics import EVENT_POPULARITY, LIST_POPULARITY, LIST_REPEATS, NEW_USER, VISITED, VISITS
from service.watch.window import Window

FIGURES: Mapping[str, str] = {
    "coverage": "share of the catalogue that was listed",
    "entropy": "entropy of the items listed, in bits",
    "novelty": "mean −log2 of the share of events of the items listed",
    "tail_share": "share of listed items that are no bestsellers: tail, cold and new",
    "repeats": "share of listed items that the user had seen",
    "overlap_yesterday": "Σ min(p, q) over the shares of items in the lists of the day and of the day before",
    "score_auc": "how often an item that an event followed scores higher than a listed one; 0.5 is chance",
    "score_calibration": "how far the softmax of a list's scores is from how often events follow its first item",
    "unknown_items": "share of events whose item is not in the catalogue",
    "new_users": "share of visits without a history",
}
_TAIL = tuple(BANDS.index(name) for name in ("tail", "cold", "new"))


def figures(window: Window, n_items: int, yesterday: Window | None) -> Mapping[str, float]:
    """Returns the figures of a window by name (`FIGURES`), without those that it has nothing for.

    Args:
        window: The window.
        n_items: Number of items in the catalogue.
        yesterday: The day before, if the window is a day and that was watched.
    """
    found: dict[str, float | None] = {
        "score_auc": window.score_auc(), "score_calibration": window.score_calibration(),
    }  # fmt: skip
    bands, seen, visits = (window.shares(name) for name in (LIST_POPULARITY, LIST_REPEATS, VISITS))
    acted = window.shares(EVENT_POPULARITY)
    if window.shown.any():
        found["coverage"], found["entropy"] = window.coverage(n_items), window.entropy()
    if bands is not None and seen is not None:
        found["novelty"] = window.surprisal / float(window.counts[LIST_POPULARITY].sum())
        found["tail_share"] = float(sum(bands[place] for place in _TAIL))
        found["repeats"] = float(seen[1])
    if visits is not None:
        found["new_users"] = float(visits[VISITED.index(NEW_USER)])
    if acted is not None:
        found["unknown_items"] = float(acted[BANDS.index("unknown")])
    if yesterday is not None:
        found["overlap_yesterday"] = window.overlap(yesterday)
    return {name: value for name, value in found.items() if value is not None}
