"""What encoders with a memory are held to on a log whose answer lies thousands of events back, written before measured.

The best of them has to find it. The window has to be no better than a guess: a higher figure would mean that the log
gives the answer away, and the figures of the others would mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

WINDOW = "gpt4rec"
LEAST_RECALL = 0.9
# A guess is right more often than this in one of a thousand measurements.
LUCK = NormalDist().inv_cdf(0.999)

FOUND: Mapping[str, float] = {"at_least": LEAST_RECALL}


def guessed(answers: int, questions: int) -> dict[str, float]:
    """Returns the limit of recall@1 of who knows which items are answers, but not which one it is.

    Args:
        answers: Items that are answers, all equally frequent.
        questions: Questions that are asked.
    """
    p = 1 / answers
    return {"at_most": round(p + LUCK * (p * (1 - p) / questions) ** 0.5 + 0.5 / questions, 4)}
