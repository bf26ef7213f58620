"""Item tokenizers: one path an item, one item a path, whatever the kind and the catalogue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Sequences, sequences
from model.data.split import leave_one_out
from model.tokenizers.atomic import AtomicTokenizer
from model.tokenizers.hierarchical import HierarchicalTokenizer
from model.tokenizers.item_content import ItemContent, contents_of
from model.tokenizers.loading import load_tokenizer
from model.tokenizers.semantic import SemanticTokenizer, balanced_assignment, nearest_codes
from model.tokenizers.tokenizer import MAX_BRANCHING, Tokenizer, unique_last_tokens
from service.artifact.array_types import IntArray
from service.artifact.trie import Trie
from tests.support.data_builders import tiny_dataset

KINDS = ("atomic", "hierarchical", "semantic")
every_kind = pytest.mark.parametrize("kind", KINDS)


def fit(kind: str, items: list[ItemContent], log: IntArray, offsets: IntArray) -> Tokenizer:
    match kind:
        case "atomic":
            return AtomicTokenizer.fit(len(items), spare=4)
        case "hierarchical":
            return HierarchicalTokenizer.fit(items)
        case _:
            return SemanticTokenizer.fit(items, log, offsets)


names = st.sampled_from(["a", "b", "c", "ü", "a/b", ""])
contents = st.builds(
    ItemContent,
    category=st.lists(names, max_size=4).map(tuple),
    brand=st.none() | names,
    attributes=st.lists(names, max_size=3).map(tuple),
)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[ItemContent], IntArray, IntArray]:
    """Contents of 1 … 40 items, and a log over some of them (maybe over none)."""
    items = draw(st.lists(contents, min_size=1, max_size=40))
    lengths = draw(st.lists(st.integers(0, 8), max_size=10))
    log = draw(st.lists(st.integers(0, len(items) - 1), min_size=sum(lengths), max_size=sum(lengths)))
    return items, np.array(log, np.int64), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def assert_sound(tokenizer: Tokenizer, n_items: int) -> None:
    assert tokenizer.codes.shape == (n_items, tokenizer.levels)
    assert tokenizer.codes.dtype == np.int64
    assert len({tuple(row) for row in tokenizer.codes.tolist()}) == n_items
    assert (tokenizer.codes >= 0).all()
    assert (tokenizer.codes < np.array(tokenizer.code_sizes)).all()


@every_kind
@given(catalogue=catalogues())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_every_item_has_one_path_and_every_path_one_item(
    kind: str, catalogue: tuple[list[ItemContent], IntArray, IntArray]
) -> None:
    tokenizer = fit(kind, *catalogue)
    assert tokenizer.kind == kind
    assert_sound(tokenizer, len(catalogue[0]))


@every_kind
@given(catalogue=catalogues(), new=st.lists(contents, min_size=1, max_size=8))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_new_items_get_free_distinct_paths_the_network_knows(
    kind: str, catalogue: tuple[list[ItemContent], IntArray, IntArray], new: list[ItemContent]
) -> None:
    tokenizer = fit(kind, *catalogue)
    new = new[: 4 if kind == "atomic" else None]
    found = [tokenizer.encode_new(content) for content in new]
    assert len(set(found)) == len(found)
    assert not set(found) & {tuple(row) for row in tokenizer.codes.tolist()}
    assert all(0 <= token < size for path in found for token, size in zip(path, tokenizer.code_sizes, strict=True))


@every_kind
def test_a_tokenizer_is_the_same_after_save_and_load_and_is_never_pickled(kind: str, tmp_path: Path) -> None:
    items, log = tiny_parts()
    tokenizer = fit(kind, items, log.item, log.offsets)
    tokenizer.save(tmp_path)
    with np.load(tmp_path / "tokenizer.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != np.object_ for name in file.files)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.code_sizes == tokenizer.code_sizes
    assert (loaded.codes == tokenizer.codes).all()
    content = ItemContent(("dept0", "group2"), "brand1", ("a0", "b3"))
    for _ in range(3):
        assert loaded.encode_new(content) == tokenizer.encode_new(content)


def test_a_tokenizer_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    AtomicTokenizer.fit(3).save(tmp_path)
    meta = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(meta | {"kind": "quantum"}), "utf-8")
    with pytest.raises(ValueError, match="unknown tokenizer kind 'quantum'"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 1], [0, 1]], [2, 2], "share a token path"),
        ([[0, 1], [0, 2]], [2, 2], "outside its level's code size"),
        ([[0, -1]], [2, 2], "outside its level's code size"),
    ],
)
def test_codes_that_break_the_promise_are_refused(codes: list[list[int]], sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AtomicTokenizer(np.array(codes), sizes)


def test_a_full_tokenizer_says_that_it_must_be_fitted_anew() -> None:
    tokenizer = AtomicTokenizer.fit(3, spare=1)
    assert tokenizer.encode_new(ItemContent()) == (3,)
    with pytest.raises(ValueError, match="refit the tokenizer"):
        tokenizer.encode_new(ItemContent())


# -- uniqueness tokens


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=60), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_last_tokens_make_any_groups_unique_with_as_few_digits_as_needed(
    rows: list[tuple[int, int]], size: int
) -> None:
    prefix = np.array(rows, np.int64)
    last = unique_last_tokens(prefix, size)
    assert ((last >= 0) & (last < size)).all()
    assert len(np.unique(np.concatenate([prefix, last], axis=1), axis=0)) == len(rows)
    largest = int(np.unique(prefix, axis=0, return_counts=True)[1].max())
    digits = last.shape[1]
    assert size**digits >= largest
    assert digits == 1 or size ** (digits - 1) < largest


@pytest.mark.parametrize("kind", ["hierarchical", "semantic"])
def test_a_group_beyond_256_gets_more_digits_and_still_takes_new_items(kind: str) -> None:
    n, like = 600, ItemContent(("books",), "penguin")
    items = [like] * n
    tokenizer: Tokenizer
    if kind == "semantic":
        tokenizer = SemanticTokenizer.fit(items, np.arange(n), np.array([0, n]), code_levels=1, code_size=1)
    else:
        tokenizer = HierarchicalTokenizer.fit(items)
    assert tokenizer.code_sizes[-1] == MAX_BRANCHING
    assert tokenizer.levels == (3 if kind == "semantic" else 4)
    assert_sound(tokenizer, n)
    depth = tokenizer.levels - 2
    new = [tokenizer.encode_new(like) for _ in range(300)]
    assert len({*new, *map(tuple, tokenizer.codes.tolist())}) == n + 300
    assert {path[:depth] for path in new} == {tuple(row) for row in tokenizer.codes[:, :depth].tolist()}


# -- likeness


def test_a_new_item_is_put_beside_its_like() -> None:
    """Four departments that nobody crosses: a new item gets the first token of its own department's items."""
    rng = np.random.default_rng(0)
    n, departments = 160, 4
    department = np.arange(n) % departments
    items = [ItemContent((f"d{d}", f"d{d}s{rng.integers(3)}"), f"b{d}{rng.integers(3)}") for d in department]
    log = np.concatenate([rng.choice(np.flatnonzero(department == u % departments), 20) for u in range(200)])
    offsets = np.arange(0, len(log) + 1, 20)
    tokenizer = SemanticTokenizer.fit(items, log, offsets, code_size=8)
    for d in range(departments):
        own = set(tokenizer.codes[department == d, 0].tolist())
        others = set(tokenizer.codes[department != d, 0].tolist())
        new = [tokenizer.encode_new(ItemContent((f"d{d}", f"d{d}s{s}"), f"b{d}{s}"))[0] for s in range(3)]
        assert set(new) <= own
        assert not set(new) & (others - own)


def test_the_weight_of_content_may_be_zero_and_new_items_are_still_told_apart() -> None:
    items, log = tiny_parts()
    tokenizer = SemanticTokenizer.fit(items, log.item, log.offsets, content_weight=0.0)
    new = {tokenizer.prefix(content)[0][0] for content in items}
    assert len(new) > 1


def test_a_new_item_in_a_hierarchy_keeps_its_known_names_and_falls_back_on_unknown_ones() -> None:
    items = [ItemContent(("a", "x"), "m"), ItemContent(("b", "y"), "n"), ItemContent(("a", "x"), "m")]
    tokenizer = HierarchicalTokenizer.fit(items)
    assert tokenizer.encode_new(items[0])[:3] == tuple(tokenizer.codes[0, :3])
    assert tokenizer.encode_new(ItemContent(("a", "new"), None))[:3] == (tokenizer.codes[0, 0], 0, 0)
    assert tokenizer.encode_new(ItemContent())[:3] == (0, 0, 0)


# -- balance


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 3), min_size=n, max_size=n), st.integers(2, 6), st.integers(0, 2**32 - 1)
        )
    )
)
@settings(max_examples=30, deadline=None)
def test_no_cell_holds_more_than_its_capacity(case: tuple[list[int], int, int]) -> None:
    parents, n_codes, seed = case
    rng = np.random.default_rng(seed)
    parent = np.array(parents, np.int64)
    members = np.bincount(parent)
    capacity = np.ceil(1.2 * members / n_codes).astype(np.int64)
    x, book = rng.normal(size=(len(parent), 2)).astype(np.float32), rng.normal(size=(n_codes, 2)).astype(np.float32)
    code = balanced_assignment(*nearest_codes(x, book, 2), parent, capacity, n_codes)
    assert ((code >= 0) & (code < n_codes)).all()
    used = np.bincount(parent * n_codes + code, minlength=len(members) * n_codes).reshape(-1, n_codes)
    assert (used <= capacity[:, None]).all()


def test_nearest_codes_are_the_nearest() -> None:
    rng = np.random.default_rng(0)
    x, book = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    code, distance = nearest_codes(x, book, 4)
    exact = ((x[:, None] - book[None]) ** 2).sum(axis=2)
    assert (code == np.argsort(exact, axis=1)[:, :4]).all()
    assert distance == pytest.approx(np.sort(exact, axis=1)[:, :4], abs=1e-5)


def test_semantic_branching_stays_within_256_in_a_lopsided_catalogue() -> None:
    """3,000 items of which nine in ten look the same."""
    rng = np.random.default_rng(0)
    items = [
        ItemContent(("same",)) if rng.random() < 0.9 else ItemContent((f"c{i}",), f"b{i % 7}") for i in range(3000)
    ]
    log = rng.integers(0, 300, 2000)
    tokenizer = SemanticTokenizer.fit(items, log, np.arange(0, 2001, 10))
    assert_sound(tokenizer, 3000)
    assert max(Trie.build(tokenizer.codes).branching) <= MAX_BRANCHING
    assert max(tokenizer.code_sizes) <= MAX_BRANCHING


# -- leakage


def tiny_parts(seed: int = 0) -> tuple[list[ItemContent], Sequences]:
    dataset = tiny_dataset(seed=seed)
    train = leave_one_out(sequences(dataset)).train
    return contents_of(dataset, train.item_ids), train


@every_kind
def test_a_changed_held_out_event_does_not_change_the_codes(kind: str) -> None:
    dataset = tiny_dataset()
    log = sequences(dataset)
    item = log.item.copy()
    last = log.offsets[1:] - 1
    item[last], item[last - 1] = item[last - 1][::-1], (item[last] + 7) % log.n_items
    items = contents_of(dataset, log.item_ids)
    fitted = [
        fit(kind, items, s.train.item, s.train.offsets) for s in map(leave_one_out, (log, replace(log, item=item)))
    ]
    assert (fitted[0].codes == fitted[1].codes).all()
    assert not (item == log.item).all()


def test_a_changed_training_event_may_change_them() -> None:
    """The other side of the claim above: the codes do come from the training part."""
    items, train = tiny_parts()
    rng = np.random.default_rng(0)
    a = SemanticTokenizer.fit(items, train.item, train.offsets)
    b = SemanticTokenizer.fit(items, rng.permutation(train.item), train.offsets)
    assert (a.codes != b.codes).any()


def test_tags_have_no_order_and_do_not_become_a_path() -> None:
    dataset = tiny_dataset(category_kind="tags")
    item = contents_of(dataset, ["i0"])[0]
    assert item.category == ("dept0",)
    assert {"dept0", "group0", "a0", "b0"} <= set(item.attributes)
