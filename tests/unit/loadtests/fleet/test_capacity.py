"""The simulation behind docs/capacity.md against queueing theory, and the arithmetic over costs that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from loadtests.draw import capacity as drawn
from loadtests.fleet.capacity_model import (
    Assumptions,
    Costs,
    Demand,
    Units,
    first_to_break,
    loads,
    needs,
    usd_a_million,
)
from loadtests.fleet.prices import COMPUTE, MANAGED, MEMORY
from loadtests.fleet.queueing import ListCosts, Machine, highest_rate, simulate

NEARLY_NOTHING = 1e-3
ALONE = ListCosts(sender=0.0, main=1000.0, turns=0.0, store=0.0, run=0.0, row=NEARLY_NOTHING)
REAL = ListCosts(sender=50.0, main=200.0, turns=200.0, store=20.0, run=150.0, row=120.0)

# Costs from which the model has to find these parts again.
MAIN, TURNS, RUN, ROW = 200.0, 160.0, 150.0, 120.0


def payload() -> dict[str, object]:
    def of(at_once: int, batch: float) -> dict[str, float]:
        service = MAIN + ROW + (TURNS + RUN) / batch
        return {"service": service, "store": 30.0, "sender": 60.0 + at_once, "batch": batch, "rate": 1.0}

    return {
        "decoder": {
            "beam": {str(n): RUN + ROW * n for n in (1, 8, 32)},
            "sampled": {str(n): 2.0 * (RUN + ROW * n) for n in (1, 8, 32)},
        },
        "shared": 1.0,
        "lists": {"1": of(1, 1.0), "8": of(8, 6.0), "32": of(32, 20.0)},
        "events": {"1": {"service": 800.0, "store": 150.0}, "50": {"service": 400.0, "store": 100.0}},
        "wire": {"request": 200, "answer": 1500, "store": 340.0},
        "service_mib": {"resident": 220.0, "private": 180.0},
        "user_bytes": {"10": {"all": 4000.0}, "50": {"all": 16000.0}, "200": {"all": 20000.0}},
    }


def test_one_thread_waits_as_theory_says() -> None:
    # M/D/1: the mean wait is ρ / (2 (1 − ρ)) services. A turn takes all that waits, and its answers leave at its end:
    # at a low load that makes little difference.
    rate, service_s = 200.0, 1e-3
    run = simulate(ALONE, Machine(cores=8.0, workers=1), rate, seconds=15.0)
    load = rate * service_s
    wait_ms = 1000.0 * service_s * load / (2.0 * (1.0 - load))
    answered_ms = 0.85  # what is done behind the answer comes after it
    assert float(np.mean(run.latencies_ms)) == pytest.approx(answered_ms + wait_ms, rel=0.2)
    assert run.busy == pytest.approx(load, rel=0.05)


def test_cores_are_shared_by_the_threads_that_have_work() -> None:
    # Four workers' threads on one core: it is busy all the time, and no more than it can do is answered.
    run = simulate(replace(ALONE, row=1000.0), Machine(cores=1.0, workers=4), 2000.0, seconds=1.0)
    assert run.busy == pytest.approx(1.0, rel=0.01)
    answered = int(np.isfinite(run.latencies_ms).sum())
    assert answered < 0.6 * 2000.0 * 2.0


def test_batches_grow_with_the_load_and_a_list_alone_is_a_batch_of_one() -> None:
    machine = Machine(cores=2.0, workers=2)
    quiet, busy = (simulate(REAL, machine, rate, seconds=1.0) for rate in (20.0, 3600.0))
    assert quiet.batch == pytest.approx(1.0, abs=0.02)
    assert busy.batch > 1.3
    assert quiet.at(50.0) < busy.at(50.0)


def test_the_highest_rate_is_where_p99_meets_its_limit() -> None:
    machine = Machine(cores=2.0, workers=2)
    rate, run = highest_rate(REAL, machine, p99_ms=20.0, precision=0.2, seeds=1, seconds=0.3)
    assert run.at(99.0) <= 20.0
    assert simulate(REAL, machine, 1.3 * rate, seconds=0.4).at(99.0) > 20.0
    assert simulate(replace(REAL, shared=1.5), machine, rate, seconds=0.4).at(99.0) > 20.0


def test_what_is_not_answered_is_late() -> None:
    run = simulate(REAL, Machine(cores=1.0, workers=1), 20_000.0, seconds=0.2, warmup_s=0.1)
    assert math.isinf(run.at(99.0))


def test_the_parts_of_a_list_are_found_again() -> None:
    found = Costs(payload()).of_lists()
    assert [found.main, found.turns] == pytest.approx([MAIN, TURNS])
    assert [found.run, found.row] == pytest.approx([RUN, ROW])
    drawn_lists = Costs(payload()).of_lists(sampled=0.5, decode_factor=2.0)
    assert drawn_lists.row == pytest.approx(2.0 * (0.5 * ROW + 0.5 * 2.0 * ROW))


def test_bytes_and_events_lie_between_what_was_measured() -> None:
    costs = Costs(payload())
    assert costs.user_bytes(30.0) == pytest.approx(10_000.0)
    assert costs.user_bytes(350.0) == pytest.approx(24_000.0)
    assert list(costs.of_event(1)) == pytest.approx([800.0, 150.0])
    assert list(costs.of_event(50)) == pytest.approx([400.0, 100.0])


def test_a_fleet_grows_with_its_demand_and_names_what_is_full_first() -> None:
    costs, assumed = Costs(payload()), Assumptions()
    small, large = Demand(users=1e4, lists=1e2, events=1e2), Demand(users=1e8, lists=1e6, events=1e6)
    units = Units(machine_cores=32, machine_gbit=12.5)
    few, many = (loads(needs(costs, demand, assumed), assumed, units) for demand in (small, large))
    assert first_to_break(few, {}) == []
    broken = first_to_break(many, few)
    assert broken[0] == max(many, key=lambda name: many[name])
    assert "the memory of one Redis" in broken
    fleet = needs(costs, large, assumed)
    assert fleet.redis_gib == pytest.approx(1e8 * 16_000.0 * 1.5 / 2**30)
    assert fleet.answer_cores == pytest.approx(1e6 * 1e-6 * costs.of_lists(1.0, 0.2).of_list(4.0) / 0.6, rel=0.1)


def test_a_price_has_a_floor_and_managed_lists_have_steps() -> None:
    costs, assumed, demand = Costs(payload()), Assumptions(), Demand(users=10, lists=1.0, events=1.0)
    fleet = needs(costs, demand, assumed)
    floor = usd_a_million(fleet, demand, assumed, COMPUTE, MEMORY, least_usd_hour=3.6)
    assert floor == pytest.approx(1000.0)
    assert MANAGED.usd_a_million(20e6) == pytest.approx(270.0)
    assert MANAGED.usd_a_million(300e6) == pytest.approx((20e3 * 0.27 + 280e3 * 0.18) / 300.0)


def test_the_page_is_drawn_from_costs_alone() -> None:
    files = {"capacity_costs": payload(), "scale": None}
    for draw in drawn.SUMMARY.values():
        assert draw([], files).startswith("|")
    assert "1,000,000 items" in drawn.sensitivity(payload(), {"decode_ms": {"1000000": {"cpu_p50": 1.2}}})
