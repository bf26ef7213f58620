"""Burn rates against a plain count, and when a budget is breached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.guard.error_budgets import (
    WINDOWS_S,
    BudgetSettings,
    Cause,
    Counts,
    ErrorBudgets,
    Rule,
    breach_share,
    budget_rules,
    return_share,
)
from tests.support.clock import FakeClock


def test_a_budget_that_is_spent_as_planned_burns_at_one() -> None:
    budgets = ErrorBudgets(BudgetSettings(late_share=0.05, failed_share=0.10, below_share=0.2), FakeClock())
    for n in range(100):
        budgets.attempt(late=n < 5, failed=n >= 90)
        budgets.answered(below=n < 20)
    assert budgets.burn_rates() == {
        objective: dict.fromkeys(WINDOWS_S, pytest.approx(1.0)) for objective in ("latency", "errors", "served")
    }


def test_without_attempts_nothing_burns() -> None:
    clock = FakeClock()
    budgets = ErrorBudgets(BudgetSettings(), clock)
    assert set(budgets.burn_rates()["errors"].values()) == {0.0}
    budgets.attempt(late=False, failed=True)
    clock.advance(WINDOWS_S["1h"] + 1)
    assert set(budgets.burn_rates()["errors"].values()) == {0.0}


def test_answers_from_below_the_model_burn_only_what_is_served() -> None:
    budgets = ErrorBudgets(BudgetSettings(below_share=0.1), FakeClock())
    budgets.answered(below=True)
    rates = budgets.burn_rates()
    assert rates["served"] == dict.fromkeys(WINDOWS_S, pytest.approx(10.0))
    assert set(rates["latency"].values()) == set(rates["errors"].values()) == {0.0}


def test_a_short_window_sees_trouble_first_and_forgets_it_first() -> None:
    clock = FakeClock()
    budgets = ErrorBudgets(BudgetSettings(), clock)
    for _ in range(1000):
        budgets.attempt(late=False, failed=False)
    clock.advance(120)
    for _ in range(10):
        budgets.attempt(late=True, failed=False)
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
        budgets.attempt(late=outcome == "late", failed=outcome == "failed")
        plain.append((clock(), outcome))
    for name, length in WINDOWS_S.items():
        surely = [o for at, o in plain if clock() - at < length - 1]
        perhaps = [o for at, o in plain if clock() - at <= length + 1]
        for objective, outcome in (("latency", "late"), ("errors", "failed")):
            share = budgets.burn_rates()[objective][name] * 0.5  # type: ignore[index]
            assert 0.0 <= share <= 1.0
            if surely == perhaps:
                assert share == pytest.approx(surely.count(outcome) / max(1, len(surely)))


@given(st.floats(0.0001, 0.999), st.sampled_from([6.0, 14.4]))
def test_every_objective_has_a_breach_that_can_happen_and_a_way_back_below_it(allowed: float, factor: float) -> None:
    assert allowed < breach_share(allowed, factor) < 1.0
    assert allowed < return_share(allowed) < breach_share(allowed, factor)


def test_thresholds_are_the_workbooks_for_strict_objectives_and_scaled_for_loose_ones() -> None:
    assert breach_share(0.01, 14.4) == pytest.approx(0.144)
    assert breach_share(0.001, 6.0) == pytest.approx(0.006)
    assert breach_share(0.2, 14.4) == pytest.approx(0.6)  # 14.4 times a fifth would be 288 %


@pytest.mark.parametrize(
    ("cause", "long", "short", "broken"),
    [
        ("latency_budget", Counts(100, late=20), Counts(10, late=2), True),
        ("latency_budget", Counts(100, failed=90), Counts(10, failed=9), False),
        ("error_budget", Counts(100, failed=20), Counts(10, failed=2), True),
        ("error_budget", Counts(100, failed=19), Counts(10, failed=9), False),
        ("error_budget", Counts(100, failed=90), Counts(10), False),
        ("error_budget", Counts(100, failed=90), Counts(), False),
        ("error_budget", Counts(49, failed=49), Counts(10, failed=9), False),
        ("breaker_open", Counts(100, late=10, failed=10), Counts(10, late=1, failed=1), True),
    ],
    ids=["late", "failed-is-not-late", "failed", "below", "over", "nothing-lately", "too-few", "either"],
)
def test_a_rule_is_broken_by_enough_bad_attempts_that_go_on(
    cause: Cause, long: Counts, short: Counts, broken: bool
) -> None:
    rule = Rule(cause, window_s=20, short_s=2, share=0.2, least=50)
    assert rule.broken(lambda seconds: long if seconds == 20 else short) is broken


def test_rules_judge_each_budget_fast_and_slow() -> None:
    rules = budget_rules(BudgetSettings(late_share=0.01, failed_share=0.02, least=50))
    assert [(r.cause, r.window_s, r.short_s, round(r.share, 3), r.least) for r in rules] == [
        ("error_budget", 20, 2, 0.288, 50),
        ("latency_budget", 20, 2, 0.144, 50),
        ("error_budget", 300, 30, 0.12, 200),
        ("latency_budget", 300, 30, 0.06, 200),
    ]
