"""Search by words of titles: beginnings, typos, ranks, and titles that come, change and go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.popularity import Popularity
from service.catalogue.live_items import LiveItems
from service.catalogue.near_words import BEGUN, EXACT, TYPO, NearWords, distance, typos_of
from service.catalogue.search import ItemSearch
from service.catalogue.word_index import WordIndex
from service.common.words import words_of
from service.metrics.service_metrics import Metrics
from tests.support.aio import asynchronous
from tests.support.item_changes import ItemsInMemory

TITLES = ["Red running shoes", "Blue running shorts", "Schindler's List", "The shining", "Trail shoes, red", None]


@dataclass(frozen=True)
class Served:
    catalogue: Catalogue = field(
        default_factory=lambda: Catalogue.of([CatalogueItem(f"i{n}", title) for n, title in enumerate(TITLES)])
    )
    version: str = "v1"
    # The later an item, the more popular it is.
    popularity: Popularity = field(default_factory=lambda: Popularity.of((np.arange(1, 7) / 21).astype(np.float32)))


def reference(word: str, other: str) -> int:
    """Optimal string alignment, by its definition."""

    def cost(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        best = min(cost(i - 1, j) + 1, cost(i, j - 1) + 1, cost(i - 1, j - 1) + (word[i - 1] != other[j - 1]))
        if i > 1 and j > 1 and word[i - 1] == other[j - 2] and word[i - 2] == other[j - 1]:
            best = min(best, cost(i - 2, j - 2) + 1)
        return best

    return cost(len(word), len(other))


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_the_distance_to_every_beginning_is_that_of_the_definition(word: str, other: str) -> None:
    assert distance(word, other) == [reference(word, other[:end]) for end in range(len(other) + 1)]


def test_looking_words_up_keeps_nothing() -> None:
    near, same = NearWords(), NearWords()
    for words in (near, same):
        words.add(["shoe", "shirt"])
    for word in ("xylophone", "qq", "shoes", "z"):
        near.near(word, begun=True)
    assert near == same and len(near) == 2


@given(st.text("abcd", min_size=4, max_size=9), st.data())
def test_a_word_with_one_typo_is_found(word: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(word) - 1))
    swapped = place + 1 < len(word)
    kind = data.draw(st.sampled_from(["more", "less", "other", *(["swap"] if swapped else [])]))
    typed = {
        "more": word[:place] + "x" + word[place:],
        "less": word[:place] + word[place + 1 :],
        "other": word[:place] + "x" + word[place + 1 :],
        "swap": word[:place] + word[place : place + 2][::-1] + word[place + 2 :],
    }[kind]
    near = NearWords()
    near.add([word, "zzzzzzz"])
    if typos_of(typed):
        assert word in near.near(typed, begun=False)


def test_what_a_word_may_mean() -> None:
    near = NearWords()
    near.add(["shoe", "shoes", "shining", "red"])
    assert near.near("shoe", begun=True) == {"shoe": EXACT, "shoes": BEGUN}
    assert near.near("shinning", begun=False) == {"shining": TYPO}
    assert near.near("shnin", begun=True) == {"shining": TYPO}  # the beginning of a word with a typo
    assert near.near("s", begun=True).keys() == {"shoe", "shoes", "shining"}
    assert near.near("rde", begun=False) == {}  # three letters forgive nothing


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4), min_size=1, max_size=8),
    st.text("abcd ", max_size=6),
)
def test_the_nearest_titles_are_those_of_plain_loops(rows: list[list[str]], text: str) -> None:
    index = WordIndex.of(" ".join(row) or None for row in rows)
    n, sets = len(rows), [set(row) for row in rows]
    rarity = {w: np.log1p(n / sum(w in row for row in sets)) for w in set().union(*sets)}
    asked = [word for word in words_of(text, 64) if word in rarity]

    def length(words: set[str]) -> float:
        return float(np.sqrt(sum(rarity[word] ** 2 for word in words)))

    wanted = {
        item: sum(rarity[word] ** 2 for word in asked if word in row) / (length(set(asked)) * length(row))
        for item, row in enumerate(sets)
        if row & set(asked)
    }
    items, cosines = index.nearest(text, n, 0.0)
    assert set(items.tolist()) == wanted.keys()
    assert np.allclose(cosines, [wanted[item] for item in items.tolist()], atol=1e-5)
    assert (np.diff(cosines) <= 0).all()


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("red shoes", ["i4", "i0"]),
        ("shoes red", ["i4", "i0"]),
        ("running sho", ["i1", "i0"]),
        ("schindlers", ["i2"]),
        ("Schindlre's", ["i2"]),
        ("runing shoes", ["i0"]),
        ("shinin", ["i3"]),
        ("shoes unheard-of", ["i4", "i0"]),
        ("nothing", []),
        ("…", []),
    ],
)
@asynchronous
async def test_search_finds(query: str, ids: list[str]) -> None:
    search = ItemSearch(LiveItems(ItemsInMemory(), Metrics()))
    try:
        assert await search.find(query, Served(), 10) == ids
    finally:
        search.close()


@asynchronous
async def test_stored_titles_are_found_at_once_and_take_the_place_of_exported_ones() -> None:
    store = ItemsInMemory()
    live = LiveItems(store, Metrics())
    store.put("early", title="Green boots")
    await live.once()
    search = ItemSearch(live)
    try:
        assert await search.find("gren boots", Served(), 10) == ["early"]
        store.put("new", title="Green shoes")
        store.put("i0", title="Sandals")
        await live.once()
        assert await search.find("shoes", Served(), 10) == ["i4", "new"]
        assert await search.find("sandals", Served(), 10) == ["i0"]
        store.delete("new")
        store.delete("i0")
        await live.once()
        assert await search.find("shoes", Served(), 10) == ["i4", "i0"]
        assert await search.find("sandals", Served(), 10) == []
        more = Served(Served().catalogue.updated([CatalogueItem("file", "Orange shoes")], ()))
        assert await search.find("shoes", more, 10) == ["i4", "i0", "file"]
        assert await search.find("shoes", Served(version="v2"), 1) == ["i4"]
    finally:
        search.close()
