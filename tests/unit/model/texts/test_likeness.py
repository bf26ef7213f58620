"""Items are alike by sentences, by what sets them apart from the rest of their catalogue, and by words."""

from __future__ import annotations

import numpy as np
import pytest

from model.texts import likeness
from model.texts.likeness import VIEWS, likenesses, whitened


def some_vectors(common: float) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    vectors[:, 0] = vectors[:, 0] * 9 + common
    vectors[5] = 0
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    return unit


def test_what_all_texts_have_in_common_does_not_make_them_alike() -> None:
    vectors = some_vectors(common=40)
    assert (vectors @ vectors.T)[:5, :5].mean() > 0.9
    white = whitened(vectors)
    others = (white @ white.T)[~np.eye(60, dtype=bool)]
    assert abs(others.mean()) < 0.1
    assert not white[5].any() and np.linalg.norm(white, axis=1)[:5] == pytest.approx(1, abs=1e-5)


def test_rare_words_count_more_than_those_of_every_text() -> None:
    texts = ["ink cartridge XR7", "ink pen XR7", "ink cartridge", *["ink cartridge of a kind"] * 9, ""]
    alike = likenesses(texts, np.zeros((len(texts), 4), np.float32))
    words = alike[VIEWS.index("words")]
    assert alike.shape == (3, len(texts), len(texts)) and words[0, 0] == pytest.approx(1)
    assert words[0, 1] > words[0, 2] > 0
    assert not words[-1].any() and not alike[:2].any()


def test_catalogues_without_words_are_alike_in_none_and_large_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not likenesses(["", "!"], np.zeros((2, 4), np.float32)).any()
    monkeypatch.setattr(likeness, "MOST_ITEMS", 1)
    with pytest.raises(ValueError, match="2 items are too many"):
        likenesses(["a", "b"], np.zeros((2, 4), np.float32))
