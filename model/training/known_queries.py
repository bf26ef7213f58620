"""The queries that a network gets sentence vectors of: the most frequent ones of its training part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from model.data.dataset import Sequences
from model.data.searches import Searches
from model.texts import sentence_vectors
from service.artifact.array_types import FloatArray
from service.artifact.query_text import words_of


def frequent_queries(train: Sequences, searches: Searches | None, most: int) -> list[str]:
    """Returns the most frequent queries as their words, the first of equally frequent ones by alphabet.

    Queries of the same words are one. Those that training does not see are not counted: a user's searches after the
    last training event.

    Args:
        train: The training part.
        searches: Those of its users; None where there are none.
        most: How many to return at most.
    """
    if searches is None or not most or not train.has_time:
        return []
    counts: Counter[str] = Counter()
    for user in range(train.n_users):
        times = train.time_ms[train.user(user)]
        if len(times):
            counts.update(" ".join(words_of(query)) for query in searches.query[searches.until(user, int(times[-1]))])
    del counts[""]
    return sorted(counts, key=lambda query: (-counts[query], query))[:most]


def query_vectors(queries: list[str], data: Path) -> FloatArray:
    """Returns the sentence vectors [queries, 384] of queries.

    Args:
        queries: The texts.
        data: The folder of the data set, which keeps the vectors. They are not kept if there is no such folder.

    Raises:
        TextError: The sentence encoder is not installed.
    """
    return sentence_vectors.item_vectors(queries, data if data.is_dir() else None)
