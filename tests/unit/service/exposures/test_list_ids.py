"""Ids of lists are ULIDs: they sort by time, and grow within a millisecond and when the clock is set back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.exposures.list_ids import ListIds, time_of

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def plain(ms: int, tail: int) -> str:
    """Time and tail as one number of 128 bits, digit by digit."""
    number, digits = (ms << 80) | tail, ""
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits = ALPHABET[digit] + digits
    return digits


@given(ms=st.integers(0, 2**48 - 1), random=st.binary(min_size=10, max_size=10))
def test_an_id_is_the_time_and_random_bits_in_base_32(ms: int, random: bytes) -> None:
    made = ListIds(lambda _: random).new(ms)
    assert made == plain(ms, int.from_bytes(random, "big") >> 1)
    assert time_of(made) == ms


@given(st.lists(st.integers(1_700_000_000_000, 1_700_000_000_003), max_size=50))
def test_ids_grow_whatever_the_clock_says(times: list[int]) -> None:
    ids = ListIds()
    made = [ids.new(ms) for ms in times]
    assert made == sorted(set(made))


@pytest.mark.parametrize("text", ["", "x" * 26, "0" * 25, "I" * 26])
def test_what_is_no_ulid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ULID"):
        time_of(text)
