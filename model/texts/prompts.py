"""Histories in words: the prompts of three tasks over one history, after P5 (Geng et al., 2022).

The task is told by the first words, and all prompts are read by one frozen sentence encoder. The newest item comes
first, because an encoder cuts long texts at their end.
"""

from __future__ import annotations

from collections.abc import Sequence

NEXT, RATING, WHY = "next", "rating", "why"
QUESTIONS = {NEXT: "What comes next?", RATING: "How will {} be rated?", WHY: "Why {}?"}
TASKS = tuple(QUESTIONS)
# Items of a history that a prompt names, and words of each: more would be cut by the encoder.
ITEMS, WORDS = 8, 6
# Tokens that the encoder reads of a prompt.
PROMPT_TOKENS = 96


def prompt(task: str, history: Sequence[str], item: str = "", ratings: Sequence[float | None] = ()) -> str:
    """Returns the prompt of a task.

    Args:
        task: One of `TASKS`.
        history: Texts of the items, the oldest first.
        item: Text of the item that the task is about; not for `NEXT`.
        ratings: Ratings of the history, where the log has them.

    Raises:
        KeyError: There is no such task.
    """
    rated = list(ratings) if ratings else [None] * len(history)
    named = [
        short(text) + ("" if value is None else f" ({value:g})")
        for text, value in list(zip(history, rated, strict=True))[::-1][:ITEMS]
    ]
    past = "; ".join(named) or "nothing"
    return f"{QUESTIONS[task].format(short(item))} So far: {past}"


def short(text: str) -> str:
    """Returns the first words of a text."""
    return " ".join(text.split()[:WORDS])
