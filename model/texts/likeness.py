"""How alike the items of a catalogue are by their texts alone, in three views. Nothing here is learned from a log.

- *sentences*: cosines of sentence vectors.
- *whitened*: the same without what all texts of the catalogue have in common: their mean is taken away, and directions
  in which they differ much are scaled down (Su et al., "Whitening sentence representations", 2021). Such vectors are
  alike by what sets items of this catalogue apart, be they films or binders.
- *words*: cosines of tf-idf over words, for names and numbers that a sentence encoder blurs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from service.artifact.array_types import FloatArray

VIEWS = ("sentences", "whitened", "words")
# [views, N, N] float32: 1.2 GB at most.
MOST_ITEMS = 10_000
# Directions with less than this share of the largest variance are noise, and not scaled up to it.
FLOOR = 0.02
_WORD = re.compile(r"\w+")


def likenesses(texts: Sequence[str], vectors: FloatArray) -> FloatArray:
    """Returns how alike items are, [VIEWS, N, N] cosines; 0 for an item without a text.

    Args:
        texts: [N] texts, for their words.
        vectors: [N, d] sentence vectors, of length 1 or 0.

    Raises:
        ValueError: The catalogue has more than `MOST_ITEMS` items.
    """
    if len(texts) > MOST_ITEMS:
        raise ValueError(f"{len(texts)} items are too many to compare all with all; {MOST_ITEMS} is the limit")
    white = whitened(vectors)
    return np.stack([vectors @ vectors.T, white @ white.T, _by_words(texts)]).astype(np.float32)


def whitened(vectors: FloatArray) -> FloatArray:
    """Returns vectors [N, d] of length 1 or 0 whose mean and spread are those of no catalogue; zeros stay zeros."""
    filled = np.linalg.norm(vectors, axis=1) > 0
    if not filled.any():
        return vectors
    centred = vectors - vectors[filled].mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(centred[filled].T, bias=True))
    scaled = centred @ axes / np.sqrt(np.maximum(variance, 0) + FLOOR * max(variance.max(), 1e-9))
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True).clip(1e-9)
    return np.where(filled[:, None], unit, 0).astype(np.float32)


def _by_words(texts: Sequence[str]) -> FloatArray:
    if not any(any(letter.isalnum() for letter in text) for text in texts):
        return np.zeros((len(texts), len(texts)), np.float32)
    words = TfidfVectorizer(sublinear_tf=True, tokenizer=_WORD.findall, token_pattern=None).fit_transform(texts)
    alike: FloatArray = (words @ words.T).toarray()
    return alike
