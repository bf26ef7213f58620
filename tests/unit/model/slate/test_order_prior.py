"""What a language model says of an order becomes a table, and a folder without one is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from model.errors import RunError
from model.slate.language_model import LanguageModel
from model.slate.learning import Items, OrderError
from model.slate.order_prior import with_prior
from service.artifact.array_types import Float64Array
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from tests.unit.model.network.test_gpt2_weights import a_gpt2, by_loops

WORDS = ("<|endoftext|>", "red", "blue", "shoe", "sock", "hat")


def catalogue(*titles: str | None) -> Catalogue:
    categories = ["shoes", "socks", "shoes", "hats", "shoes", "socks"]
    rows = enumerate(zip(titles, categories, strict=False))
    return Catalogue.of([CatalogueItem(str(n), title, (category,)) for n, (title, category) in rows])


class SocksBelowShoes:
    """A text alone has the log-probability of its length; a sock right below a shoe is likelier than by itself."""

    def log_probs(self, orders: Sequence[Sequence[str]]) -> Float64Array:
        alone = [-float(sum(len(text) for text in order)) for order in orders]
        more = [3.0 if len(order) > 1 and "shoe" in order[0] and "sock" in order[1] else 0.0 for order in orders]
        return np.asarray(np.array(alone) + np.array(more), np.float64)


def test_a_prior_is_what_one_text_makes_of_another_right_below() -> None:
    known = catalogue("red shoe", "red sock", "blue shoe", "hat", "third shoe", None)
    items = with_prior(Items.of(known), known, SocksBelowShoes())
    assert items.names == ("shoes", "socks", "hats")
    follows = items.follows
    assert follows.shape == (3, 3) and follows.dtype == np.float32
    assert follows[0, 1] == follows.max() > 1.0
    others = np.delete(follows.ravel(), 1)
    assert (others[others != 0] < 0).all()
    assert follows[2, 2] == 0.0  # one text: nothing to compare it with


def test_without_titles_there_is_no_prior() -> None:
    known = catalogue("red shoe", None, "blue shoe", None)
    with pytest.raises(OrderError, match="fewer than two categories"):
        with_prior(Items.of(known), known, SocksBelowShoes())


def a_model(folder: Path) -> Path:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed: make texts")
    from tokenizers import Tokenizer, models, pre_tokenizers

    a_gpt2(folder, prefix="transformer.")
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_log_probability_of_an_order_equals_plain_loops(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "gpt2")
    orders = [["red shoe", "blue sock"], ["hat"], ["blue", "red", "shoe hat"]]
    found = LanguageModel(folder).log_probs(orders)
    tensors = load_file(folder / "model.safetensors")
    words = tensors["transformer.wte.weight"].astype(float)
    for order, value in zip(orders, found.tolist(), strict=True):
        ids = [0, *(WORDS.index(word) for text in order for word in text.split())]
        logits = by_loops(folder, words[ids]) @ words.T
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = sum(logits[t, ids[t + 1]] for t in range(len(ids) - 1))
        assert value == pytest.approx(expected, rel=1e-4)


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no language model"):
        LanguageModel(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="not the folder of a GPT-2"):
        LanguageModel(tmp_path / "empty")
    folder = a_model(tmp_path / "gpt2")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(RunError, match="the tokenizer cannot be read"):
        LanguageModel(folder)
    a_model(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match="the weights cannot be read"):
        LanguageModel(folder)
