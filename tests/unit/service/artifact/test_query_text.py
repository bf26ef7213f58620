"""Queries as numbers: bounded, the same everywhere, and free of what a log cannot hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.artifact.query_text import NO_GRAM, QUERY_CHARS, QUERY_GRAMS, kept_query, query_grams


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
