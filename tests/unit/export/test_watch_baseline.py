"""A baseline holds the distributions of the log and of validation lists, and thresholds that chance does not reach."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import watch_baseline
from model.data.dataset import Dataset, sequences
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.artifact.artifact import Artifact
from service.watch.baseline import read_baseline
from service.watch.item_groups import ItemGroups
from service.watch.statistics import LIST_SCORES, STATISTICS, bins_of, js_bits


def test_chance_does_not_reach_a_threshold_and_a_shift_does() -> None:
    rng = np.random.default_rng(5)
    taste = rng.dirichlet(np.ones(6), 400)  # each subject has a mix of its own, of about eight events
    each = np.array([rng.multinomial(rng.integers(1, 16), mix) for mix in taste])
    found = watch_baseline.distribution(tuple("abcdef"), each)
    assert found is not None
    assert list(found.thresholds) == sorted(found.thresholds, reverse=True)
    for size in (60, 300, 2000):
        limit = found.threshold(size)
        assert limit is not None
        quiet = [each[rng.integers(len(each), size=size)].sum(axis=0) for _ in range(300)]
        assert max(float(js_bits(found.shares, one / one.sum())) for one in quiet) < limit
        moved = 0.4 * found.shares + 0.6 * np.eye(6)[0]
        assert float(js_bits(found.shares, moved)) > limit


def test_a_statistic_of_too_few_subjects_has_no_distribution() -> None:
    assert watch_baseline.distribution(("a", "b"), np.ones((19, 2), np.int64)) is None
    assert watch_baseline.distribution(("a", "b"), np.zeros((99, 2), np.int64)) is None


def test_an_export_has_the_distributions_of_its_log_and_its_lists(
    tiny_baseline: Callable[[str], Path], tiny_log: Path
) -> None:
    artifact = Artifact.open(tiny_baseline("item_cf"))
    groups = ItemGroups.of(artifact.catalogue, artifact.popularity)
    bins = bins_of(groups)
    found = read_baseline(artifact.manifest, bins)
    assert found is not None
    assert set(found.distributions) == set(STATISTICS)
    log = split_of(TrainConfig(), sequences(Dataset.load(tiny_log))).train
    types, bands, categories, visits = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for user in range(len(log.user_ids)):
        rows, before = log.user(user), None
        for place, row in enumerate(range(rows.start, rows.stop)):
            types[bins["event_types"][int(log.type[row])]] += 1
            bands[bins["event_popularity"][int(groups.band[log.item[row]])]] += 1
            categories[artifact.catalogue.items[int(log.item[row])].category[0]] += 1
            hour = int(log.time_ms[row]) // 3_600_000
            if hour != before:
                visits["0" if place == 0 else "1-4" if place < 5 else "5-19" if place < 20 else "20+"] += 1
            before = hour
    for name, counts in (
        ("event_types", types), ("event_popularity", bands), ("event_categories", categories), ("visits", visits),
    ):  # fmt: skip
        shares = dict(zip(bins[name], found.distributions[name].shares.tolist(), strict=True))
        assert shares == pytest.approx({b: counts[b] / counts.total() for b in bins[name]}), name
    assert (found.distributions["list_repeats"].shares[1] > 0) == artifact.repeats
    assert found.distributions[LIST_SCORES].shares == pytest.approx(np.full(10, 0.1), abs=0.05)
    assert len(json.dumps(found.to_json())) < 16_384
