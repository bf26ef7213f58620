"""Windows end with the hour and the day, their figures stay, and drift is told from a baseline or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.artifact.features import EVENT_TYPES
from service.metrics.service_metrics import Metrics, value_of
from service.watch.baseline import Distribution, WatchBaseline, WatchBaselineError, read_baseline
from service.watch.counting import SeenEvent, ShownList
from service.watch.item_groups import ItemGroups
from service.watch.statistics import bins_of
from service.watch.traffic_watch import TrafficWatch
from tests.support.clock import FakeClock
from tests.support.fakes import FakeArtifact

HOUR = 3600.0


class Model:
    """What is watched of a model."""

    def __init__(self, version: str = "fake-1", **manifest: Any) -> None:
        self.version = version
        self.artifact = FakeArtifact(manifest=manifest)
        self.engine = self
        self.vocabulary = self.artifact.vocabulary


GROUPS = ItemGroups.of(FakeArtifact().catalogue, FakeArtifact().popularity)
BINS = bins_of(GROUPS)


def baseline(**shares: dict[str, float]) -> dict[str, Any]:
    found = {
        name: Distribution(BINS[name], np.array([given.get(b, 0.0) for b in BINS[name]]), 100, [50, 500], [0.2, 0.02])
        for name, given in shares.items()
    }
    return WatchBaseline(found, np.arange(9.0)).to_json()


def watch_of(model: Model, clock: FakeClock) -> tuple[TrafficWatch, Metrics]:
    metrics = Metrics()
    served: Any = model
    return TrafficWatch(lambda: served, metrics, wall_clock=clock), metrics


def post(watch: TrafficWatch, users: int, kind: str = "view") -> None:
    watch.happened(SeenEvent(user, kind, "1", None) for user in range(users))


def samples(metrics: Metrics, family: str) -> dict[tuple[str, ...], float]:
    (found,) = [one for one in metrics.registry.collect() if one.name == family]
    return {tuple(s.labels.values()): s.value for s in found.samples if not s.name.endswith("_created")}


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.now = 10 * 24 * HOUR
    return clock


def test_an_hour_is_published_when_it_is_over_and_stays_until_the_next(clock: FakeClock) -> None:
    watch, metrics = watch_of(Model(), clock)
    nothing = np.zeros(0, np.int64)
    watch.shown("fake-1", ShownList("L", 0, "all", np.array([0, 39]), None, nothing, 0))
    watch.shown("another", ShownList("M", 0, "all", np.array([5]), None, nothing, 0))
    watch.note()
    assert samples(metrics, "gpt4rec_watch") == {}
    assert value_of(metrics.watch.skipped, "lists") == 1
    assert sum(samples(metrics, "gpt4rec_shown_items").values()) == 2
    clock.now += HOUR
    watch.note()
    assert samples(metrics, "gpt4rec_watch")["coverage", "hour"] == pytest.approx(2 / 40)
    assert samples(metrics, "gpt4rec_watched") == {("lists", "hour"): 1, ("events", "hour"): 0}
    clock.now += HOUR
    watch.note()
    assert samples(metrics, "gpt4rec_watch") == {}  # nothing was shown in that hour
    clock.now += 24 * HOUR
    watch.note()
    assert samples(metrics, "gpt4rec_watch")["coverage", "day"] == pytest.approx(2 / 40)


def test_a_shift_of_the_events_is_told_at_the_end_of_its_hour_and_is_over_with_the_next(clock: FakeClock) -> None:
    model = Model(watch_baseline=baseline(event_types={"view": 0.9, "purchase": 0.1}))
    watch, metrics = watch_of(model, clock)
    assert samples(metrics, "gpt4rec_watch_baseline")["ok",] == 1
    for kinds, drifted in (({"view": 90, "purchase": 10}, 0), ({"purchase": 200}, 1), ({"view": 90, "cart": 10}, 0)):
        for kind, users in kinds.items():
            post(watch, users, kind)
        watch.note()
        clock.now += HOUR
        watch.note()
        assert value_of(metrics.watch.drifted, "event_types", "hour") == drifted
    assert watch.summary()["over"] == {"hour": []}


def test_too_few_subjects_say_nothing_of_drift(clock: FakeClock) -> None:
    watch, metrics = watch_of(Model(watch_baseline=baseline(event_types={"view": 1.0})), clock)
    post(watch, 40, "purchase")
    watch.note()
    clock.now += HOUR
    watch.note()
    assert samples(metrics, "gpt4rec_drift") == {}


def test_more_than_a_second_may_hold_is_skipped_and_counted(clock: FakeClock) -> None:
    watch, metrics = watch_of(Model(), clock)
    post(watch, 3000)
    watch.note()
    assert value_of(metrics.watch.skipped, "events") == 3000 - 2048
    assert watch.summary()["events"] == 2048


def test_what_drifted_until_another_model_came_is_told_at_once(clock: FakeClock) -> None:
    metrics = Metrics()
    known = {"watch_baseline": baseline(event_types={"view": 1.0})}
    models = [Model("fake-1", **known), Model("fake-2", **known), Model("fake-3")]
    served: Any = models
    watch = TrafficWatch(lambda: served[0], metrics, wall_clock=clock)
    post(watch, 100, "cart")
    del models[0]
    watch.note()
    assert value_of(metrics.watch.drifted, "event_types", "hour") == 1
    clock.now += HOUR
    watch.note()
    assert value_of(metrics.watch.drifted, "event_types", "hour") == 1  # they are events of that hour all the same
    assert samples(metrics, "gpt4rec_watched")["events", "hour"] == 100
    del models[0]
    watch.note()
    assert samples(metrics, "gpt4rec_drifted") == {}
    assert samples(metrics, "gpt4rec_watch_baseline") == {("ok",): 0, ("missing",): 1, ("unreadable",): 0}
    assert watch.summary()["baseline"] == "missing"
    clock.now += HOUR
    watch.note()
    assert samples(metrics, "gpt4rec_watch") == {}


def test_with_a_new_model_each_hour_days_are_watched_all_the_same(clock: FakeClock) -> None:
    """The catalogue turns by one item each hour, so what was listed must be found under other indices."""
    metrics = Metrics()
    known, nothing = {"watch_baseline": baseline(event_types={"view": 1.0})}, np.zeros(0, np.int64)
    served: Any = Model("fake-0", **known)
    ids = list(served.vocabulary.item_index)
    watch = TrafficWatch(lambda: served, metrics, wall_clock=clock)
    for n in range(1, 49):
        item = served.vocabulary.item_index[ids[n % 2]]
        watch.shown(served.version, ShownList(f"L{n}", n, "all", np.array([item]), None, nothing, 0))
        post(watch, 60, "view" if n <= 24 else "cart")
        watch.note()
        clock.now += HOUR / 2
        served = Model(f"fake-{n}", **known)
        turned = {item_id: (place + n) % len(ids) for place, item_id in enumerate(ids)}
        served.vocabulary = replace(served.vocabulary, item_index=turned)
        watch.note()
        clock.now += HOUR / 2
        watch.note()
        if n == 24:
            assert value_of(metrics.watch.drifted, "event_types", "day") == 0
    assert value_of(metrics.watch.drifted, "event_types", "day") == 1
    assert samples(metrics, "gpt4rec_watched")["events", "day"] == 24 * 60
    assert samples(metrics, "gpt4rec_watch")["overlap_yesterday", "day"] == pytest.approx(1.0)
    assert samples(metrics, "gpt4rec_watch")["entropy", "day"] == pytest.approx(1.0)
    assert watch.summary()["lists"] == 0
    assert value_of(metrics.watch.drifted, "event_types", "hour") == 1


def test_a_watch_that_is_off_counts_nothing(clock: FakeClock) -> None:
    served: Any = Model()
    watch = TrafficWatch(lambda: served, Metrics(), on=False, wall_clock=clock)
    post(watch, 3)
    assert watch.summary() == {}


def test_a_baseline_is_read_as_it_was_written() -> None:
    entry = baseline(event_types={"view": 1.0})
    found = read_baseline({"watch_baseline": entry}, BINS)
    assert found is not None
    one = found.distributions["event_types"]
    assert one.bins == EVENT_TYPES
    assert one.threshold(49) is None
    assert one.threshold(50) == pytest.approx(0.2)
    assert one.threshold(np.sqrt(50 * 500)) == pytest.approx(np.sqrt(0.2 * 0.02))
    assert one.threshold(10_000) == pytest.approx(0.02)
    assert found.to_json() == entry
    assert read_baseline({}, BINS) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"score_edges": [1.0]},
        {"statistics": {"event_types": {"bins": ["view"], "shares": [1.0], "subjects": 1}}},
        {"statistics": {"of tomorrow": baseline(event_types={"view": 1.0})["statistics"]["event_types"]}},
        {"statistics": baseline(event_types={"view": 0.5})["statistics"]},
        {"statistics": None},
    ],
    ids=["format", "edges", "fields", "name", "shares", "type"],
)
def test_a_baseline_of_another_format_is_never_misread(change: dict[str, Any], clock: FakeClock) -> None:
    entry = {**baseline(event_types={"view": 1.0}), **change}
    with pytest.raises(WatchBaselineError, match="watch_baseline"):
        read_baseline({"watch_baseline": entry}, BINS)
    _, metrics = watch_of(Model(watch_baseline=entry), clock)
    assert samples(metrics, "gpt4rec_watch_baseline")["unreadable",] == 1
