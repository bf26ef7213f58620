"""Search queries as hashed n-grams: the same few numbers in training and in serving, without a dictionary.

A query is read as its words and the groups of three characters of each word, between marks for its ends (Bojanowski et
al., "Enriching word vectors with subword information", 2017), so that spellings and inflections share most of what
they say. Each n-gram is hashed to one of the network's buckets (Weinberger et al., "Feature hashing for large scale
multitask learning", 2009).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import numpy as np

from service.artifact.array_types import IntArray

# Of a query so many n-grams are read, and of its text so many characters are kept in a history.
QUERY_GRAMS = 24
QUERY_CHARS = 200
# No n-gram: the rows of shorter queries end with it.
NO_GRAM = 0
_WORD = re.compile(r"\w+")


def kept_query(query: str) -> str:
    """Returns a query as a history keeps it: without control characters, runs of blanks as one, cut in length."""
    # `split` also splits at the separators of the store's log.
    return " ".join(query.split())[:QUERY_CHARS].rstrip()


def query_grams(query: str, buckets: int) -> IntArray:
    """Returns what a network reads of a query: the words first, then the groups of three characters.

    Args:
        query: The text.
        buckets: Number of buckets of the network, at least 1.

    Returns:
        [QUERY_GRAMS] int64 numbers from 1 to `buckets`, each once, followed by `NO_GRAM`.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", kept_query(query)).casefold())
    threes = (f"<{word}>"[at : at + 3] for word in words for at in range(len(word)))
    grams = dict.fromkeys(_bucket(text, buckets) for text in (*(f"={word}" for word in words), *threes))
    found = np.full(QUERY_GRAMS, NO_GRAM, np.int64)
    first = list(grams)[:QUERY_GRAMS]
    found[: len(first)] = first
    return found


def _bucket(text: str, buckets: int) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "big") % buckets
