"""The lists that clicks find are a fair sample of the last half hour, whatever the traffic."""

from __future__ import annotations

from service.watch.remembered import Remembered


def test_few_lists_are_all_found_until_they_are_too_old() -> None:
    kept = Remembered[int](most=100, seconds=1800.0)
    for n in range(100):
        kept.add(f"L{n}", n, float(n))
    assert [kept.get(f"L{n}", 1800.0) for n in (0, 50, 99)] == [0, 50, 99]
    assert (kept.get("L0", 1800.5), kept.get("L1", 1800.5), kept.get("never", 0.0)) == (None, 1, None)
    assert kept.one_in == 1


def test_of_many_lists_a_late_click_finds_as_many_as_an_early_one() -> None:
    kept = Remembered[int](most=1000, seconds=1800.0)
    for n in range(60_000):  # for an hour
        kept.add(f"L{n}", n, n * 0.06)
        assert len(kept) <= 1000
    assert kept.one_in == 32
    found = [
        sum(kept.get(f"L{n}", 3600.0) is not None for n in range(first, first + 10_000)) for first in (30_000, 50_000)
    ]
    assert all(230 < n < 400 for n in found)
    assert not any(kept.get(f"L{n}", 3600.0) for n in range(29_900))


def test_when_traffic_ceases_more_lists_are_taken_again() -> None:
    kept = Remembered[int](most=64, seconds=10.0)
    for n in range(1000):
        kept.add(f"L{n}", n, 0.0)
    before = kept.one_in
    for n in range(1000, 1400):
        kept.add(f"L{n}", n, float(n))
    assert before >= 16
    assert kept.one_in == 1
    assert kept.get("L1399", 1399.0) == 1399
