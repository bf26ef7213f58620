"""What runs take, predicted from what they took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.run_costs import RunCosts, RunningQuantile, with_headroom
from tests.support.clock import FakeClock


def costs(batch_max: int = 32) -> tuple[RunCosts, FakeClock]:
    clock = FakeClock()
    return RunCosts(batch_max, clock), clock


def test_what_was_never_measured_is_let_through() -> None:
    one, _ = costs()
    assert one.run_s("a", 1) == one.drain_s("a", 100) == 0.0


def test_a_kind_that_was_never_run_may_cost_half_of_the_cheapest_that_was() -> None:
    one, clock = costs()
    one.ran("b", 1, 5.0)
    one.ran("c", 1, 3.0)
    assert one.run_s("a", 1) == 1.5
    one.ran("a", 1, 9.0)
    assert one.run_s("a", 1) == 9.0
    clock.advance(60)
    assert one.run_s("a", 1) == 0.0


def test_one_slow_run_changes_nothing_and_many_do_within_a_few_runs() -> None:
    one, _ = costs()
    for _ in range(15):
        one.ran("a", 1, 0.01)
    one.ran("a", 1, 9.0)
    assert one.run_s("a", 1) == 0.01
    for _ in range(7):
        one.ran("a", 1, 9.0)
    assert one.run_s("a", 1) == 9.0


def test_a_size_that_was_never_run_may_cost_no_more_than_one_half_as_large() -> None:
    one, _ = costs()
    one.ran("a", 4, 0.040)
    assert one.run_s("a", 1) == 0.040  # not more than a larger one
    assert one.run_s("a", 8) == 0.040
    assert one.run_s("a", 16) == pytest.approx(0.080)
    assert one.run_s("a", 32) == pytest.approx(0.160)


def test_sizes_are_told_apart() -> None:
    one, _ = costs()
    for rows, seconds in ((1, 0.010), (4, 0.040), (32, 0.320)):
        one.ran("a", rows, seconds)
    assert [one.run_s("a", rows) for rows in (1, 4, 32)] == [0.010, 0.040, 0.320]


def test_a_size_is_tried_again_when_it_was_not_run_for_long() -> None:
    one, clock = costs()
    one.ran("a", 8, 9.0)
    clock.advance(59)
    one.ran("a", 1, 0.001)
    assert one.run_s("a", 8) == 9.0
    clock.advance(1)
    assert one.run_s("a", 8) < 0.01


def test_more_jobs_than_a_run_holds_take_several() -> None:
    one, _ = costs(batch_max=4)
    for rows, seconds in ((1, 0.04), (2, 0.06), (3, 0.08), (4, 0.10)):
        one.ran("a", rows, seconds)
    assert one.drain_s("a", 0) == 0.0
    assert one.drain_s("a", 4) == 0.1
    assert one.drain_s("a", 10) == pytest.approx(0.10 + 0.10 + 0.06)
    # The first of them is in time with one other only.
    assert one.drain_s("a", 5, left_s=0.09) == pytest.approx(0.06 + 0.06 + 0.04)
    assert one.drain_s("a", 2, left_s=0.01) == pytest.approx(0.04 + 0.04)


@given(
    st.floats(0.0, 0.05), st.floats(0.0, 0.05), st.integers(1, 32),
    st.lists(st.floats(-0.1, 2.0), min_size=1, max_size=40),
)  # fmt: skip
def test_a_run_takes_as_many_jobs_as_are_in_time_for_it(
    fixed: float, by_row: float, batch_max: int, spare: list[float]
) -> None:
    """Against a plain search, with costs that are known for every size."""
    one, _ = costs(batch_max)
    for rows in range(1, batch_max + 1):
        one.ran("a", rows, fixed + by_row * rows)
    fits = [n for n in range(1, min(batch_max, len(spare)) + 1) if with_headroom(one.run_s("a", n)) <= min(spare[:n])]
    # Costs grow with the size, so what fits is a beginning of the sizes.
    assert one.rows_within("a", spare) == len(fits)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_a_running_quantile_is_that_of_the_latest_values(values: list[float], share: float) -> None:
    running = RunningQuantile(share, 15)
    for n, value in enumerate(values):
        running.add(value, float(n))
    latest = values[-15:]
    assert running.value in latest
    assert sum(value <= running.value for value in latest) >= share * len(latest)
    assert sum(value < running.value for value in latest) < share * len(latest)


@given(
    st.dictionaries(st.integers(1, 40), st.floats(0.0, 0.1), max_size=6),
    st.integers(1, 60), st.floats(0.0, 0.2), st.integers(0, 50), st.integers(1, 32),
)  # fmt: skip
def test_jobs_drain_in_the_runs_that_as_many_with_one_deadline_would_make(
    measured: dict[int, float], jobs: int, left_s: float, together: int, batch_max: int
) -> None:
    one = RunCosts(batch_max, FakeClock(), together_max=40)
    for rows, seconds in measured.items():
        one.ran("a", rows, seconds)
    rows = max(1, one.rows_within("a", [left_s] * jobs, together=together))
    runs, rest = divmod(jobs, rows)
    whole = runs * one.run_s("a", rows) + (one.run_s("a", rest) if rest else 0.0)
    assert one.drain_s("a", jobs, left_s, together=together) == whole
