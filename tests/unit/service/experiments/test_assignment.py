"""Who is in which arm: balanced, sticky, exclusive within a layer and independent between layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.experiments.assignment import Assigned, Assignment, bucket_of
from service.experiments.document import (
    BUCKETS,
    KEPT_MAX,
    RUNNING_MAX,
    Document,
    ExperimentError,
    ExperimentSpec,
    HoldOut,
    parse,
)

SUBJECTS = [f"u:{i}" for i in range(20_000)]


def spec(name: str, **more: Any) -> ExperimentSpec:
    arms = [{"name": "control", "share": 0.5}, {"name": "new", "share": 0.5}]
    return ExperimentSpec.model_validate({"name": name, "arms": arms, **more})


def chi_square(counts: Counter[Any], expected: dict[Any, float]) -> float:
    total = sum(expected.values())
    n = counts.total()
    return sum((counts[key] - n * share / total) ** 2 / (n * share / total) for key, share in expected.items())


def test_arms_have_their_shares_and_every_bucket_as_many_subjects() -> None:
    arms = [{"name": "a", "share": 0.2}, {"name": "b", "share": 0.3}, {"name": "c", "share": 0.5}]
    by = Assignment(Document().started(spec("one", arms=arms), 0))
    counts = Counter(by.of(subject).arms["one"] for subject in SUBJECTS)
    assert chi_square(counts, {"a": 0.2, "b": 0.3, "c": 0.5}) < 13.8  # 99.9 % of 2 degrees of freedom
    buckets = Counter(bucket_of("layer default", subject) // 100 for subject in SUBJECTS)
    assert chi_square(buckets, dict.fromkeys(range(100), 1.0)) < 148.3  # 99.9 % of 99


def test_arms_outlive_the_process() -> None:
    """What another process, or another release, must say too; the buckets are those of `b2sum -l 64`."""
    by = Assignment(Document().started(spec("one", salt="s"), 0))
    assert [bucket_of("arm s", f"u:{i}") for i in range(5)] == [9226, 7199, 9350, 7103, 9081]
    assert [by.of(f"u:{i}").arms["one"] for i in range(5)] == ["new"] * 5


def test_a_subject_is_in_one_experiment_of_a_layer_at_most_and_layers_are_independent() -> None:
    document = Document().started(spec("one", share=0.4), 0).started(spec("two", share=0.6), 1)
    by = Assignment(document.started(spec("three", layer="other"), 2))
    found = [by.of(subject).arms for subject in SUBJECTS]
    assert all(len({"one", "two"} & arms.keys()) == 1 for arms in found)
    pairs = Counter((arms["one"], arms["three"]) for arms in found if "one" in arms)
    assert chi_square(pairs, dict.fromkeys(pairs, 1.0)) < 16.3  # 99.9 % of 3
    assert len(pairs) == 4


@settings(max_examples=25)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5, unique=True))
def test_a_share_that_grows_moves_nobody(steps: list[float]) -> None:
    started = Document().started(spec("one", steps=sorted(steps), guardrails={}), 0)
    before: dict[str, str] = {}
    for step in range(len(steps)):
        by = Assignment(started.changed(started.experiments[0].run, step=step))
        now = {s: arms["one"] for s in SUBJECTS[:500] if (arms := by.of(s).arms)}
        assert before.items() <= now.items()
        before = now


def test_the_portion_of_a_step_is_let_in_of_each_arm() -> None:
    by = Assignment(Document().started(spec("one", steps=[0.1, 1.0], guardrails={}), 0))
    counts = Counter(by.of(subject).arms.get("one") for subject in SUBJECTS)
    assert chi_square(counts, {"control": 0.05, "new": 0.05, None: 0.9}) < 13.8


def test_the_hold_out_is_in_no_experiment_and_stays_when_they_change() -> None:
    held = Document(holdout=HoldOut(share=0.1, model="old"))
    out = {s for s in SUBJECTS if Assignment(held).of(s).held_out}
    later = Assignment(held.started(spec("one"), 0))
    assert {s for s in SUBJECTS if later.of(s).held_out} == out
    assert not any(later.of(s).arms for s in out)
    assert 0.09 < len(out) / len(SUBJECTS) < 0.11


def test_a_forced_arm_takes_the_place_of_the_drawn_one() -> None:
    document = Document().started(spec("one"), 0).started(spec("two", layer="other"), 1)
    by = Assignment(document)
    own = by.of("u:1").arms
    forced = by.forced({"one": "new"}, "u:1")
    assert isinstance(forced, Assigned)
    assert forced.arms == {**own, "one": "new"}
    assert by.forced({"one": "new"}, None) == Assigned({"one": "new"}, (document.experiments[0].arms[1],))
    assert "no experiment three" in str(by.forced({"three": "new"}, None))
    assert "no arm better" in str(by.forced({"one": "better"}, None))


def test_an_experiment_gets_the_first_gap_of_its_layer() -> None:
    document = Document().started(spec("one", share=0.3), 0).started(spec("two", share=0.3), 1)
    document = document.changed(document.experiments[0].run, state="stopped")
    assert document.started(spec("three", share=0.2), 2).experiments[-1].buckets == (0, 2000)
    assert document.started(spec("three", share=0.4), 2).experiments[-1].buckets == (6000, BUCKETS)
    with pytest.raises(ExperimentError, match=r"70.00% of the subjects left, not in one piece of 60.00%: two"):
        document.started(spec("three", share=0.6), 2)
    with pytest.raises(ExperimentError, match="is running"):
        document.started(spec("two", share=0.1), 2)


def test_layers_that_decide_the_same_are_refused() -> None:
    def arms(**more: str) -> list[dict[str, Any]]:
        return [{"name": "control", "share": 0.5}, {"name": "new", "share": 0.5, **more}]

    document = Document().started(spec("one", arms=arms(model="m")), 0)
    assert document.started(spec("two", layer="other", arms=arms(ranker="r")), 1).running[1].layer == "other"
    with pytest.raises(ExperimentError, match="in the layer default name a model too"):
        document.started(spec("two", layer="other", arms=arms(model="m2")), 1)


def test_the_document_is_bounded_and_keeps_what_runs() -> None:
    document = Document()
    for i in range(RUNNING_MAX):
        document = document.started(spec(f"run-{i}", layer=f"l{i}"), i)
    with pytest.raises(ExperimentError, match="stop one first"):
        document.started(spec("more", layer="more"), 9)
    for i in range(2 * KEPT_MAX):
        document = document.changed(document.experiments[-1].run, state="stopped").started(spec(f"e{i}"), 100 + i)
    assert len(document.running) == RUNNING_MAX
    assert len(document.experiments) <= RUNNING_MAX + KEPT_MAX
    assert parse(document.model_dump(mode="json")) == document


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"arms": [{"name": "a", "share": 1.0}]}, "at least 2"),
        ({"arms": [{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}]}, "there twice"),
        ({"arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.4}]}, "add up to 0.9"),
        ({"steps": [0.5, 0.1], "guardrails": {}}, "ascending"),
        ({"steps": [0.1, 0.5]}, "needs guardrails"),
        ({"share": 0.00001}, "no subjects"),
        ({"name": "Ä"}, "pattern"),
    ],
)
def test_what_is_wrong_with_an_experiment_is_said(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        spec(**{"name": "one", **fields})


def test_a_document_of_another_format_is_refused_by_place() -> None:
    with pytest.raises(ExperimentError, match="format: Input should be 1"):
        parse({"format": 2})
