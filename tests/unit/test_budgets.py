"""Burn rates against a plain count over a list of attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.budgets import WINDOWS_S, BudgetSettings, ErrorBudgets
from tests.clock import FakeClock


def test_a_budget_that_is_spent_as_planned_burns_at_one() -> None:
    budgets = ErrorBudgets(BudgetSettings(late_share=0.05, failed_share=0.10), FakeClock())
    for n in range(100):
        budgets.record(late=n < 5, failed=n >= 90)
    assert budgets.burn_rates() == {
        "latency": dict.fromkeys(WINDOWS_S, pytest.approx(1.0)),
        "errors": dict.fromkeys(WINDOWS_S, pytest.approx(1.0)),
    }


def test_without_attempts_nothing_burns() -> None:
    clock = FakeClock()
    budgets = ErrorBudgets(BudgetSettings(), clock)
    assert set(budgets.burn_rates()["errors"].values()) == {0.0}
    budgets.record(late=False, failed=True)
    clock.advance(WINDOWS_S["1h"] + 1)
    assert set(budgets.burn_rates()["errors"].values()) == {0.0}


def test_a_short_window_sees_trouble_first_and_forgets_it_first() -> None:
    clock = FakeClock()
    budgets = ErrorBudgets(BudgetSettings(late_share=0.01, failed_share=0.01), clock)
    for _ in range(1000):
        budgets.record(late=False, failed=False)
    clock.advance(120)
    for _ in range(10):
        budgets.record(late=True, failed=False)
    rates = budgets.burn_rates()["latency"]
    assert rates["1m"] == pytest.approx(100.0)
    assert rates["1h"] == pytest.approx(10 / 1010 / 0.01)
    clock.advance(70)
    rates = budgets.burn_rates()["latency"]
    assert rates["1m"] == 0.0
    assert rates["5m"] == pytest.approx(10 / 1010 / 0.01)


@given(st.lists(st.tuples(st.floats(0, 400), st.sampled_from(["ok", "late", "failed"])), max_size=60))
def test_rates_are_those_of_a_plain_count(attempts: list[tuple[float, str]]) -> None:
    """Slices make a window up to one slice shorter or longer, so the plain count leaves that much room."""
    clock = FakeClock()
    budgets = ErrorBudgets(BudgetSettings(late_share=0.5, failed_share=0.5), clock)
    plain: list[tuple[float, str]] = []
    for gap, outcome in attempts:
        clock.advance(gap)
        budgets.record(late=outcome == "late", failed=outcome == "failed")
        plain.append((clock(), outcome))
    for name, length in WINDOWS_S.items():
        surely = [o for at, o in plain if clock() - at < length - 5]
        perhaps = [o for at, o in plain if clock() - at <= length + 5]
        for objective, outcome in (("latency", "late"), ("errors", "failed")):
            share = budgets.burn_rates()[objective][name] * 0.5  # type: ignore[index]
            assert 0.0 <= share <= 1.0
            if surely == perhaps:
                assert share == pytest.approx(surely.count(outcome) / max(1, len(surely)))
