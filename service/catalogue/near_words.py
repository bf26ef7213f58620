"""Words that a word may have been meant to be: it begins them, or differs by a typo.

Candidates share enough pairs of letters; the distance of optimal string alignment (a letter more, less, another, or two
letters swapped) decides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

# Words that are compared letter by letter, the most promising ones.
_COMPARED_MAX = 200
# Words that a beginning stands for, the shortest ones.
_BEGUN_MAX = 200
EXACT, BEGUN, TYPO = 0, 1, 2


@dataclass(slots=True)
class NearWords:
    """A set of words to which words are added.

    It is not thread-safe: the event loop must not add while another thread looks.
    """

    _words: set[str] = field(default_factory=set)
    _by_pair: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _by_start: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return len(self._words)

    def add(self, words: Iterable[str]) -> None:
        """Adds words."""
        for word in words:
            if word not in self._words:
                self._words.add(word)
                self._by_start[word[:2]].append(word)
                for pair in _pairs(word):
                    self._by_pair[pair].append(word)

    def near(self, word: str, *, begun: bool) -> dict[str, int]:
        """Returns the words that `word` may mean, and how: `EXACT`, `BEGUN` or `TYPO`.

        Args:
            word: A folded word.
            begun: Whether it may be the beginning of a word.
        """
        found = {word: EXACT} if word in self._words else {}
        if begun and len(word) > 1:
            longer = (other for other in self._by_start.get(word[:2], ()) if other.startswith(word) and other != word)
            found |= dict.fromkeys(sorted(longer, key=len)[:_BEGUN_MAX], BEGUN)
        elif begun:
            longer = (
                other for start in list(self._by_start) if start.startswith(word) for other in self._by_start[start]
            )
            found |= dict.fromkeys(sorted(longer, key=len)[:_BEGUN_MAX], BEGUN)
        typos = typos_of(word)
        if typos and not found:
            found |= {other: TYPO for other in self._alike(word, typos) if _within(word, other, typos, begun=begun)}
        return found

    def _alike(self, word: str, typos: int) -> list[str]:
        pairs = _pairs(word)
        shared = Counter(other for pair in pairs for other in self._by_pair.get(pair, ()))
        # One typo changes at most three pairs: the two around a letter, or three around a swap.
        least = max(1, len(pairs) - 3 * typos)
        return [other for other, count in shared.most_common(_COMPARED_MAX) if count >= least]


def typos_of(word: str) -> int:
    """Returns how many typos are forgiven: none in three letters, one from four on, two from eight on."""
    return 0 if len(word) < 4 else 1 if len(word) < 8 else 2


def distance(word: str, other: str) -> list[int]:
    """Returns the distances of optimal string alignment between `word` and each beginning of `other`, [len + 1]."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, start=1):
        older, before, row = before, row, [i]
        for j, theirs in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != theirs))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == theirs:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row


def _within(word: str, other: str, typos: int, *, begun: bool) -> bool:
    if len(other) < len(word) - typos or (not begun and len(other) > len(word) + typos):
        return False
    row = distance(word, other[: len(word) + typos])
    return min(row[max(0, len(word) - typos) :]) <= typos if begun else row[len(other)] <= typos


def _pairs(word: str) -> set[str]:
    padded = f"^{word}"
    return {padded[i : i + 2] for i in range(len(padded) - 1)} | {f"{word[-1:]}$"}
