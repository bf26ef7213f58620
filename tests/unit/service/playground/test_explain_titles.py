"""Items by title: what is found for what is typed, and in which order."""

from __future__ import annotations

import pytest

from service.common.words import fold
from service.playground import title_index
from service.playground.title_index import TitleIndex

TITLES = [
    "Star Wars (1977)",
    "Amélie",
    "Lone Star",
    "Schindler's List (1993)",
    "Starship Troopers",
    "Wars of the Stars",
]
INDEX = TitleIndex([10, 11, 12, 13, 14, 15], TITLES)


def found(query: str, limit: int = 10) -> list[int]:
    return INDEX.find(query, limit)


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("star wars", [10, 15]),
        ("STAR", [10, 14, 12, 15]),  # whole beginnings first, then by popularity
        ("amelie", [11]),
        ("schindlers", [13]),
        ("schindler's list", [13]),
        ("wars star", [10, 15]),
        ("hip", [14]),
        ("1977", [10]),
        ("nothing of the kind", []),
        ("\n", [10, 11, 12, 13, 14, 15]),
        ("?!", [10, 11, 12, 13, 14, 15]),
    ],
)
def test_an_item_is_found_by_every_word_of_the_question(query: str, items: list[int]) -> None:
    assert found(query) == items


def test_no_more_than_asked_for_and_the_most_popular_where_nothing_is_asked() -> None:
    assert found("star", 2) == [10, 14]
    assert found("", 3) == [10, 11, 12]


def test_a_title_of_signs_alone_harms_no_other_and_lines_do_not_run_together() -> None:
    index = TitleIndex([0, 1, 2], ["…", "a\nb", "c"])
    assert index.find("b", 5) == [1]
    assert index.find("b c", 5) == []
    assert index.find("c", 5) == [2]


def test_a_question_that_fits_everything_looks_at_the_popular_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(title_index, "SCANNED_MAX", 3)
    index = TitleIndex(range(100), [f"thing {n}" for n in range(100)])
    assert index.find("thing", 10) == [0, 1, 2]


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_a_search_in_blocks_finds_what_a_search_of_the_whole_finds(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [f"thing {n} of {n * n}" for n in range(40)]
    whole = TitleIndex(range(40), titles)
    asked = ("thing", "9", "of 16", "thing 3", "nothing", "g 1")
    expected = [whole.find(query, 40) for query in asked]
    monkeypatch.setattr(title_index, "BLOCK", block)
    assert [whole.find(query, 40) for query in asked] == expected


def test_folding_keeps_words_of_any_script() -> None:
    assert fold("Привет, МИР!") == " привет мир"
    assert fold("東京 (Tokyo)") == " 東京 tokyo"


def test_every_item_needs_a_title() -> None:
    with pytest.raises(ValueError, match="1 titles for 2 items"):
        TitleIndex([1, 2], ["one"])
