"""What the fleets of both kinds are asked, and how their figures are compared."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from loadtests.fleet.roles import Figures, compared, work


def test_lists_and_events_come_at_their_rates_in_the_order_in_which_they_are_due() -> None:
    arrivals = work(["a", "b"], np.random.default_rng(0), 10.0, 50.0, 100.0)
    lists = [one for one in arrivals if one.path == "/recommend"]
    assert len(lists) == pytest.approx(500, rel=0.2)
    assert len(arrivals) - len(lists) == pytest.approx(1000, rel=0.2)
    assert [one.due_s for one in arrivals] == sorted(one.due_s for one in arrivals)
    events = [orjson.loads(one.body)["events"] for one in arrivals if one.path == "/events"]
    assert all(len(batch) == 1 and batch[0]["item_id"] in ("a", "b") for batch in events)


def test_figures_are_compared_by_the_geometric_mean_of_their_ratios() -> None:
    one, other = Figures(100.0, 400.0, 1.0, 2.0), Figures(200.0, 200.0, 1.0, 1.0)
    assert compared([(one, other), (other, one)], "answering_us") == pytest.approx(1.0)
    assert compared([(one, other)], "answering_us") == pytest.approx(0.5)
    assert compared([(one, other)], "all_us") == pytest.approx(2.0)
