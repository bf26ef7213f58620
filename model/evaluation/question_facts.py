"""What the targets of a hold-out part say about its figures: how many are repeats, and how many share a timestamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.data.split import Holdout, Split

# Share of tied targets from which on a warning is given.
MANY_TIES = 0.1
# Questions whose histories are laid out at once.
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class QuestionFacts:
    """Shares of the targets.

    Attributes:
        repeats: Share of the targets that are in the user's history.
        ties: Share of the targets with the timestamp of the event before; None in a log without times.
    """

    repeats: float
    ties: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns the shares, and the warnings."""
        return {"repeat_share": self.repeats, "tied_share": self.ties, "warnings": list(self.warnings())}

    def warnings(self) -> tuple[str, ...]:
        """Returns what a reader of the figures must know."""
        if self.ties is None or self.ties < MANY_TIES:
            return ()
        return (
            f"{self.ties:.1%} of the targets have the timestamp of the event before them: there the order of the file "
            "decides what comes next, so the figures depend on how the log was written",
        )


def question_facts(split: Split, questions: Holdout) -> QuestionFacts:
    """Looks at the targets of a hold-out part of a split; 0 where it is empty."""
    log = split.sequences
    start, n = log.offsets[questions.users], len(questions)
    repeated = np.zeros(n, bool)
    for first in range(0, n, _BATCH):
        rows = slice(first, first + _BATCH)
        length = questions.history_end[rows] - start[rows]
        of = np.repeat(np.arange(len(length)), length)
        event = np.repeat(start[rows] - (np.cumsum(length) - length), length) + np.arange(len(of))
        repeated[first + np.unique(of[log.item[event] == questions.target[rows][of]])] = True
    if not log.has_time:
        return QuestionFacts(_mean(repeated), None)
    before = np.maximum(questions.history_end - 1, 0)
    tied = (questions.history_end > start) & (log.time_ms[before] == log.time_ms[questions.history_end])
    return QuestionFacts(_mean(repeated), _mean(tied))


def _mean(which: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    return round(float(which.mean()), 4) if len(which) else 0.0
