"""What a shadow counts, what is said of it, and what is wrong with one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.experiment_text import experiment_lines, experiments_lines
from service.experiments.assignment import Assignment
from service.experiments.counts import ArmCounts
from service.experiments.document import Document, ExperimentError, ExperimentSpec, parse
from service.experiments.planned import start
from service.experiments.report import report
from service.experiments.shadow_counts import compared, overlap_of, told

LISTS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


def spec(**more: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"name": "s", "kind": "shadow", "arms": [{"name": "c", "model": "m"}], **more})


@given(LISTS, LISTS)
def test_the_overlap_is_that_of_plain_loops(shown: list[str], candidate: list[str]) -> None:
    both = sum(1 for item in shown if item in candidate)
    longest = max(len(shown), len(candidate), 1)
    assert overlap_of(shown, candidate) == (both / longest if shown or candidate else 1.0)


@given(st.lists(st.floats(0.0001, 4.0), min_size=1, max_size=60))
def test_times_are_those_of_their_buckets(seconds: list[float]) -> None:
    counts: Counter[str] = Counter()
    for one in seconds:
        counts.update(compared(["a"], ["a"], one, 2 * one))
    times = told(counts)["shown_ms"]
    assert times["mean"] == pytest.approx(1000 * np.mean(seconds), rel=1e-3, abs=1e-3)
    exact = 1000 * np.quantile(seconds, 0.95, method="inverted_cdf")
    assert 0.3 * exact <= times["p95"] + 0.5 and times["p95"] <= 2.6 * exact + 0.5
    assert times["p50"] <= times["p95"]


def test_a_shadow_is_put_in_words() -> None:
    started = Document().started(spec(share=0.25), 0).experiments[0]
    counts = Counter(compared(["a", "b"], ["a", "c"], 0.002, 0.004)) + Counter(compared(["a"], ["a"], 0.002, 0.004))
    shown = report(started, {"c": ArmCounts.of({**counts, "shadow_busy": 3})})
    assert (shown["kind"], shown["share"], shown["shares_mismatch"]) == ("shadow", 0.25, False)
    lines = "\n".join(experiment_lines(shown))
    assert "25.0% of the requests run on c as well: 2 compared, 0 dropped, 3 busy" in lines
    assert "75.0% of the items of a list are the same; 100.0% of the lists have the same first item, and 50.0%" in lines
    memory = {"held": {}, "limit_mib": 1.0, "faults": {}}
    assert "25.0% of the requests" in experiments_lines({"experiments": [shown], "holdout": None, "memory": memory})[1]
    nothing = report(started, {})
    assert nothing["shadow"]["overlap"] is None
    assert experiment_lines(nothing)[0] == "The shadow s is running."
    assert "behind their answers and in spare time only" in start(spec(), started)[0]


def test_a_shadow_has_no_subjects_and_takes_nobodys_place() -> None:
    document = Document().started(spec(), 0)
    arms = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "model": "m2"}]
    both = document.started(ExperimentSpec.model_validate({"name": "x", "layer": "l", "arms": arms}), 1)
    assert both.experiments[1].buckets == (0, 10_000)
    assert Assignment(both).of("u:1").arms.keys() == {"x"}
    assert both.models == ("m", "m2") and parse(both.model_dump(mode="json")) == both
    # Nobody clicks on a shadow, so its name may come again on the same day.
    again = document.changed(document.experiments[0].run, state="stopped", ended_at_ms=5).started(spec(), 9)
    assert again.shadows[0].run == "s:9"
    with pytest.raises(ExperimentError, match="is running"):
        document.started(spec(), 1)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"arms": [{"name": "a", "share": 0.5, "model": "m"}, {"name": "b", "share": 0.5}]}, "one arm"),
        ({"arms": [{"name": "a"}]}, "as for everybody"),
        ({"guardrails": {}}, "no guardrails"),
        ({"layer": "other"}, "no layer"),
    ],
)
def test_what_is_wrong_with_a_shadow_is_said(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        spec(**fields)
