"""Queries as numbers: bounded, the same everywhere, and free of what a log cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.query_text import NO_GRAM, QUERY_CHARS, QUERY_GRAMS, KnownQueries, kept_query, query_grams


@given(st.text(max_size=400), st.integers(1, 5000))
def test_a_query_of_any_text_is_a_bounded_number_of_different_buckets(query: str, buckets: int) -> None:
    grams = query_grams(query, buckets)
    told = grams[grams != NO_GRAM]
    assert grams.shape == (QUERY_GRAMS,) and len(set(told.tolist())) == len(told)
    assert ((told >= 1) & (told <= buckets)).all()
    assert (grams[len(told) :] == NO_GRAM).all()
    kept = kept_query(query)
    assert len(kept) <= QUERY_CHARS and not set(kept) & set("\x1e\x1f\n")
    assert kept_query(kept) == kept and (query_grams(kept, buckets) == grams).all()


def test_case_punctuation_and_form_do_not_matter_and_words_that_look_alike_share_n_grams() -> None:
    assert (query_grams("Red SHOES!", 2**20) == query_grams("  red   shoes", 2**20)).all()
    shoe, shoes, lamp = (set(query_grams(text, 2**20).tolist()) - {NO_GRAM} for text in ("shoe", "shoes", "lamp"))
    assert len(shoe & shoes) >= 3
    assert not shoe & lamp


def test_the_numbers_of_a_query_are_part_of_the_format_of_a_trained_model() -> None:
    assert query_grams("tea", 1000)[:5].tolist() == [504, 140, 705, 681, 0]
    assert not query_grams("?!", 1000).any()


@given(st.lists(st.text("ab c", min_size=1, max_size=5), max_size=4), st.text("ab c", max_size=60))
def test_a_known_query_has_its_number_before_its_n_grams_and_another_has_none(queries: list[str], asked: str) -> None:
    words = list(dict.fromkeys(" ".join(query.split()) for query in queries))
    plain, known = query_grams(asked, 64), KnownQueries.of(words)
    found = query_grams(asked, 64, known)
    asked = " ".join(asked.split())
    assert found[0] == (64 + 1 + words.index(asked) if asked in words else NO_GRAM)
    assert (found[1:] == plain[:-1]).all()


def test_known_queries_come_back_from_their_file_and_those_of_another_network_are_refused(tmp_path: Path) -> None:
    known = KnownQueries.of(["green tea", "lamp"])
    known.save(tmp_path)
    again = KnownQueries.load(tmp_path, 2)
    assert [again.number(query) for query in ("LAMP!", " green  tea", "tea")] == [2, 1, 0]
    with pytest.raises(ValueError, match="not int64"):
        KnownQueries.load(tmp_path, 3)
    np.savez(tmp_path / "queries.npz", format=[2], digests=known.digests)
    with pytest.raises(ValueError, match="this version reads 1"):
        KnownQueries.load(tmp_path, 2)
