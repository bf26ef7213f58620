"""Search queries as a few numbers, the same in training and in serving: hashed n-grams, and vectors of known queries.

A query is read as its words and the groups of three characters of each word, between marks for its ends (Bojanowski et
al., "Enriching word vectors with subword information", 2017), so that spellings and inflections share most of what
they say. Each n-gram is hashed to one of the network's buckets (Weinberger et al., "Feature hashing for large scale
multitask learning", 2009).

A network may also have vectors of queries that were frequent in its training, made by a sentence encoder
(`model.training.known_queries`). Serving has no such encoder: it looks queries up by a digest of their words, and reads
the n-grams alone of those that it does not find.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.arrays import map_arrays, save_arrays

# Of a query so many n-grams are read, and of its text so many characters are kept in a history.
QUERY_GRAMS = 24
QUERY_CHARS = 200
# No n-gram: the rows of shorter queries end with it.
NO_GRAM = 0
_WORD = re.compile(r"\w+")

# The known queries of a run and of an artefact, the format of the file and its array.
KNOWN_QUERIES = "queries.npz"
_FORMAT, _DIGESTS = 1, "digests"


@dataclass(frozen=True, eq=False)
class KnownQueries:
    """Queries of which a network has a vector.

    Attributes:
        digests: [n] int64 of their words, each once. The query i has the number i + 1.
    """

    digests: IntArray

    @classmethod
    def of(cls, queries: Iterable[str]) -> Self:
        """Returns those of queries of different words."""
        return cls(np.array([_digest(query) for query in queries], np.int64))

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def _number(self) -> Mapping[int, int]:
        return {digest: number for number, digest in enumerate(self.digests.tolist(), start=1)}

    def number(self, query: str) -> int:
        """Returns the number of a query; 0 for one that is not known."""
        return self._number.get(_digest(query), 0)

    def save(self, folder: Path) -> None:
        """Writes the file of a run or an artefact."""
        save_arrays(folder / KNOWN_QUERIES, format=np.array([_FORMAT], np.int64), **{_DIGESTS: self.digests})

    @classmethod
    def load(cls, folder: Path, n: int) -> Self:
        """Reads what `save` wrote of n queries.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is damaged, has another format, or is of other queries.
            KeyError: An array is missing.
        """
        arrays = map_arrays(folder / KNOWN_QUERIES)
        if arrays["format"].tolist() != [_FORMAT]:
            raise ValueError(f"the known queries have format {arrays['format'].tolist()}, this version reads {_FORMAT}")
        known = cls(arrays[_DIGESTS])
        if known.digests.dtype != np.int64 or known.digests.shape != (n,):
            raise ValueError(f"the known queries are not int64 [{n}]")
        return known


def kept_query(query: str) -> str:
    """Returns a query as a history keeps it: without control characters, runs of blanks as one, cut in length."""
    # `split` also splits at the separators of the store's log.
    return " ".join(query.split())[:QUERY_CHARS].rstrip()


def words_of(query: str) -> list[str]:
    """Returns the words of a query as they are read: without case, punctuation and differences of form."""
    return _WORD.findall(unicodedata.normalize("NFKC", kept_query(query)).casefold())


def query_grams(query: str, buckets: int, known: KnownQueries | None = None) -> IntArray:
    """Returns what a network reads of a query: the words first, then the groups of three characters.

    Args:
        query: The text.
        buckets: Number of buckets of the network, at least 1.
        known: The queries that the network has vectors of; None if it has none.

    Returns:
        [QUERY_GRAMS] int64 numbers from 1 to `buckets`, each once, followed by `NO_GRAM`. With `known`, `buckets` + the
        number of the query comes first, or `NO_GRAM` if it is not known.
    """
    words = words_of(query)
    threes = (f"<{word}>"[at : at + 3] for word in words for at in range(len(word)))
    grams = dict.fromkeys(_bucket(text, buckets) for text in (*(f"={word}" for word in words), *threes))
    found = np.full(QUERY_GRAMS, NO_GRAM, np.int64)
    at = 0
    if known is not None:
        number = known.number(query)
        found[0], at = buckets + number if number else NO_GRAM, 1
    first = list(grams)[: QUERY_GRAMS - at]
    found[at : at + len(first)] = first
    return found


def _bucket(text: str, buckets: int) -> int:
    return 1 + int.from_bytes(_hashed(text), "big") % buckets


def _digest(query: str) -> int:
    return int.from_bytes(_hashed(" ".join(words_of(query))), "big", signed=True)


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
