"""What positions, decays and patterns of attention are held to at three horizons, written before any figure. Pure.

A figure is NDCG@10 of a training divided by that of the training it is compared with, of the questions of one horizon.
What promises better lists has to be above 1; a pattern that reads less of the window may lose no more than 3 %. The
expectation that decay helps most a day ahead has a row of its own: `GRADIENT`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from model.data.times import DAY_MS
from model.network.config import TimeDecay

BETTER: Mapping[str, float] = {"above": 1.0}
NO_WORSE: Mapping[str, float] = {"at_least": 0.97}

# Horizon → milliseconds between what is known and what is asked for: at least, and less than.
HORIZONS: Mapping[str, tuple[int, int]] = {
    "day": (DAY_MS, 7 * DAY_MS),
    "week": (7 * DAY_MS, 30 * DAY_MS),
    "month": (30 * DAY_MS, 365 * DAY_MS),
}
LEAST_QUESTIONS = 20  # of a horizon; fewer are not asked
SIGNIFICANT = 0.05

Verdict = Literal["helps", "hurts", "no difference found"]
# Gain of the learned decay a day ahead less its gain a month ahead, in NDCG@10.
GRADIENT: Mapping[str, float] = {"above": 0.0}


@dataclass(frozen=True)
class Variant:
    """A training of `window_attention`.

    Attributes:
        network: What it changes of the network's settings.
        against: The training it is compared with.
        limit: Limit of its NDCG@10 over that of `against`, as keywords of `results.row`.
        methods: Training methods that belong to it.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    against: str = ""
    limit: Mapping[str, float] = field(default_factory=lambda: BETTER)
    methods: Mapping[str, float] = field(default_factory=dict)


STANDARD, FIXED, LEARNED = "standard attention", "fixed decay", "learned decay"
NONE = {"time_decay": "none"}
DECAYS = tuple(kind for kind in get_args(TimeDecay) if kind != "none")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
POSITIONS = {"relative": "relative", "relative and time": "relative_time", "sinusoids": "sinusoid", "none": "none"}


def _variants() -> dict[str, Variant]:
    found = {
        STANDARD: Variant(NONE),
        FIXED: Variant({"time_decay": "exponential", "decay_rate": 0.1}, STANDARD),
        LEARNED: Variant({}, STANDARD),
        "learned decay, exponential": Variant({"time_decay": "exponential"}, STANDARD),
        "learned decay, linear": Variant({"time_decay": "linear"}, STANDARD),
    }
    for name, positions in POSITIONS.items():
        found[f"positions: {name}, no decay"] = Variant({"positions": positions, **NONE}, STANDARD)
        found[f"positions: {name}"] = Variant({"positions": positions}, LEARNED)
    return found | {
        "pattern: strided": Variant({"pattern": "strided"}, LEARNED, NO_WORSE),
        "pattern: fixed": Variant({"pattern": "fixed"}, LEARNED, NO_WORSE),
        "pattern: routing": Variant({"pattern": "routing"}, LEARNED, NO_WORSE),
        "pattern: routing, balanced": Variant(
            {"pattern": "routing"}, LEARNED, NO_WORSE, {"routing_balance": 0.01}
        ),
    }  # fmt: skip


def rate_name(kind: str, rate: float) -> str:
    """Returns the name of a training with a fixed rate λ."""
    return f"{kind} decay of {rate:g}"


VARIANTS: Mapping[str, Variant] = _variants()
SWEEPS: Mapping[str, Variant] = {
    rate_name(kind, rate): Variant({"time_decay": kind, "decay_rate": rate}, STANDARD)
    for kind in DECAYS
    for rate in RATES
}
ALL: Mapping[str, Variant] = {**VARIANTS, **SWEEPS}


def verdict(difference: float, p_holm: Sequence[float]) -> Verdict:
    """Returns what a difference in NDCG@10 says: both tests have to find it, each with Holm's correction."""
    if max(p_holm) > SIGNIFICANT:
        return "no difference found"
    return "helps" if difference > 0 else "hurts"
