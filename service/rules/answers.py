"""Answers about items, remembered by question. Callers choose the questions, so one bound holds for all together."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

# What an answer takes at most: its place, and each rule, value or group that it names.
_BYTES_OF_ANSWER, _BYTES_OF_PART = 192, 96
_BYTES_OF_LETTER = 4
# Different answers that are known as equal: less than 2 MB.
_SHARED_MAX = 4096

_Answer = TypeVar("_Answer", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Question:
    size: int
    answers: dict[int, Any] = field(default_factory=dict)


class Answers:
    """Remembers answers. The question that was asked least recently is forgotten first. Safe for several threads.

    Attributes:
        size: What it holds, in bytes, rounded up.
    """

    def __init__(self, size_max: int) -> None:
        """Holds up to `size_max` bytes."""
        self.size = 0
        self._size_max = size_max
        self._lock = threading.Lock()
        self._questions: dict[str, _Question] = {}  # asked least recently first
        self._numbers: dict[str, int] = {}
        self._next = itertools.count()
        self._shared: dict[Hashable, Any] = {}

    def number_of(self, value: str) -> int:
        """Returns a number that no other value has. They are those of a catalogue, so they need no bound."""
        known = self._numbers.get(value)
        return self._numbers.setdefault(value, next(self._next)) if known is None else known

    def shared(self, answer: _Answer) -> _Answer:
        """Returns one object for equal answers: those of a list then lie close together in memory."""
        if len(self._shared) >= _SHARED_MAX:
            self._shared.clear()
        found: _Answer = self._shared.setdefault(answer, answer)
        return found

    def all_of(self, key: str, items: Sequence[int], ask: Callable[[list[int]], Iterable[Any]]) -> list[Any]:
        """Returns the answers to a question, in the order of the items; the arguments are those of `of`."""
        question = self._questions.get(key)
        if question is not None and 2 * self.size < self._size_max:  # no need to note yet what was asked last
            answers = question.answers
            try:
                return [answers[item] for item in items]
            except KeyError:
                pass
        known = self.of(key, items, ask)
        return [known[item] for item in items]

    def of(self, key: str, items: Sequence[int], ask: Callable[[list[int]], Iterable[Any]]) -> Mapping[int, Any]:
        """Returns the answers to a question, those for these items among them.

        Args:
            key: The question.
            items: The items.
            ask: Answers it for the items that are not remembered, in their order.
        """
        with self._lock:
            question = self._questions.pop(key, None)
            if question is None:
                question = _Question(_BYTES_OF_ANSWER + _BYTES_OF_LETTER * len(key))
                self.size += question.size
            self._questions[key] = question
            self._forget()
            known = question.answers
        unknown = [item for item in items if item not in known]
        if unknown:
            found = dict(zip(unknown, ask(unknown), strict=True))
            with self._lock:
                self._keep(key, question, found)
        return known

    def _keep(self, key: str, question: _Question, found: Mapping[int, Any]) -> None:
        size = sum(_size(answer) for item, answer in found.items() if item not in question.answers)
        question.answers.update(found)
        question.size += size
        if self._questions.get(key) is not question:
            return  # forgotten meanwhile
        self.size += size
        self._forget()

    def _forget(self) -> None:
        while self.size > self._size_max:  # the newest question too, if it is too large by itself
            oldest = next(iter(self._questions))
            self.size -= self._questions.pop(oldest).size


def _size(answer: Any) -> int:
    parts = sum(len(part) for part in answer if isinstance(part, tuple)) if isinstance(answer, tuple) else 0
    return _BYTES_OF_ANSWER + _BYTES_OF_PART * parts
