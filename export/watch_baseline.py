"""What lists and traffic were like when the model was made, which the service compares its own with.

Lists are those of validation questions, decoded as the default policies decode them. Events and visits are those of the
training log, in which what a user did within an hour is one visit.

The threshold of a window is found by a bootstrap over users: both the baseline and a window of so many users are drawn
again and again from the same users, and their divergences give the tail that chance hardly ever reaches. The tail is
that of the gamma distribution with the same mean and variance (Satterthwaite's approximation: near equality the
divergence is a weighted sum of squares of normal variables).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammainccinv

from model.data.dataset import Sequences
from model.data.split import Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import EngineJobs, batches_of
from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.engine.baseline_engine import BaselineEngine
from service.engine.engine import Engine
from service.engine.run_groups import result_of
from service.watch.baseline import Distribution, WatchBaseline
from service.watch.item_groups import ItemGroups
from service.watch.statistics import (
    EVENT_CATEGORIES,
    EVENT_POPULARITY,
    EVENT_TYPE,
    LIST_CATEGORIES,
    LIST_POPULARITY,
    LIST_REPEATS,
    LIST_SCORES,
    SCORE_BINS,
    SCORED,
    VISITED,
    VISITS,
    bins_of,
    js_bits,
    visit_bin,
)

LISTS = 1000  # validation questions that are asked
SUBJECTS = 1000  # subjects that the noise is measured on
REPLICATES = 300
# Effective numbers of subjects of a window. Fewer than the first say nothing; more than the last are like the last.
SIZES: Final = (50.0, 100.0, 250.0, 1000.0, 4096.0)
# Of a quiet window. A month has some 7,000 windows and statistics.
FALSE_ALARM = 1e-6
# Smaller shifts are no drift, however sure. As a stability index it would be 0.1, which is usually called small:
# near equality, the index is eight times the divergence in nats.
LEAST_BITS = 0.018
_LEAST_SUBJECTS = 20
_HOUR_MS = 3_600_000
_UNTIMED = 10  # events that count as an hour in a log without times

_Counts = npt.NDArray[np.int64]


def watch_baseline(engine: Engine | BaselineEngine, split: Split) -> WatchBaseline:
    """Returns the baseline of an artefact.

    Args:
        engine: The opened artefact.
        split: The data it was made from.
    """
    groups = ItemGroups.of(engine.artifact.catalogue, engine.artifact.popularity)
    bins = bins_of(groups)
    counts, edges = _lists(engine, split, groups)
    counts.update(_log(split.train, groups))
    found = {name: distribution(bins[name], each, pooled) for name, (each, pooled) in counts.items()}
    return WatchBaseline({name: one for name, one in found.items() if one is not None}, edges)


def distribution(bins: tuple[str, ...], each: _Counts, pooled: _Counts | None = None) -> Distribution | None:
    """Returns the distribution of a statistic, with its thresholds; None if too few subjects have it.

    Args:
        bins: Names of the bins.
        each: [subjects, bins] counts of some of the subjects.
        pooled: [bins] counts of all of them; None: those are all.
    """
    each = each[each.sum(axis=1) > 0]
    if len(each) < _LEAST_SUBJECTS:
        return None
    pooled = each.sum(axis=0) if pooled is None else pooled
    shares = each / each.sum(axis=1, keepdims=True)
    return Distribution(bins, pooled / pooled.sum(), len(each), SIZES, [_threshold(shares, n) for n in SIZES])


def _threshold(shares: Float64Array, size: float) -> float:
    """The divergence that a window of `size` subjects hardly ever reaches, if it is of the same kind as the baseline.

    Args:
        shares: [subjects, bins] what each subject of the baseline contributes.
        size: Number of subjects of the window.
    """
    rng, n = np.random.default_rng(0), len(shares)
    even = np.full(n, 1.0 / n)
    before = rng.multinomial(n, even, REPLICATES) @ shares / n
    window = rng.multinomial(int(size), even, REPLICATES) @ shares / size
    divergences = js_bits(before, window)
    mean, variance = float(divergences.mean()), float(divergences.var())
    if mean <= 0.0 or variance <= 0.0:
        return LEAST_BITS
    return max(LEAST_BITS, float(gammainccinv(mean * mean / variance, FALSE_ALARM)) * variance / mean)


_Found = dict[str, tuple[_Counts, _Counts | None]]


def _lists(engine: Engine | BaselineEngine, split: Split, groups: ItemGroups) -> tuple[_Found, Float64Array]:
    """Counts of each validation list by statistic, and the edges between the bins of scores."""
    names, asked = bins_of(groups), list(_answers(engine, split))
    scores = [found for _, found, _ in asked if found is not None]
    edges = np.zeros(SCORE_BINS - 1)
    counts: _Found = {}
    if scores:
        edges = np.quantile(np.concatenate(scores).astype(np.float64), np.arange(1, SCORE_BINS) / SCORE_BINS)
        counts[LIST_SCORES] = _each([np.searchsorted(edges, one, side="right") for one in scores], SCORE_BINS), None
    of: Mapping[str, list[IntArray]] = {
        LIST_CATEGORIES: [groups.categories_of(items) for items, _, _ in asked],
        LIST_POPULARITY: [groups.bands_of(items) for items, _, _ in asked],
        LIST_REPEATS: [np.isin(items, history).astype(np.int64) for items, _, history in asked],
    }
    counts.update({name: (_each(rows, len(names[name])), None) for name, rows in of.items()})
    return counts, edges


def _answers(engine: Engine | BaselineEngine, split: Split) -> Iterator[tuple[IntArray, FloatArray | None, IntArray]]:
    """The items of each list, their scores unless they were drawn, and the items of the history."""
    asked = split.valid.sample(LISTS)
    histories = Histories(asked.users, asked.history_end, split.sequences, not engine.artifact.repeats)
    jobs_of = EngineJobs(engine, None)
    for rows in batches_of([len(histories.items(i)) for i in range(len(histories))]):
        jobs = [
            jobs_of.of(
                histories.events(row, engine.artifact.vocabulary),
                histories.excluded(row),
                SCORED,
                int(histories.users[row]),
            )
            for row in rows
        ]
        for row, one, result in zip(rows, jobs, engine.run(jobs), strict=True):
            decoded = result_of(result).decoded
            drawn = one.request.decoding.sampled
            yield decoded.items, None if drawn else decoded.scores[:SCORED], histories.items(row)


def _log(log: Sequences, groups: ItemGroups) -> _Found:
    """Counts of some visits, and of all, by statistic."""
    if not len(log.item):
        return {}
    names, users = bins_of(groups), np.repeat(np.arange(len(log.user_ids)), log.lengths)
    place = np.arange(len(log.item)) - log.offsets[users]
    hour = log.time_ms // _HOUR_MS if log.has_time else place // _UNTIMED
    begins = np.concatenate([[True], (np.diff(users) != 0) | (np.diff(hour) != 0)])
    visit, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    chosen = np.random.default_rng(0).permutation(len(first))[:SUBJECTS]
    row = np.full(len(first), -1, np.int64)
    row[chosen] = np.arange(len(chosen))
    found: _Found = {}
    for name, codes in (
        (EVENT_TYPE, log.type.astype(np.int64)),
        (EVENT_CATEGORIES, groups.categories_of(log.item)),
        (EVENT_POPULARITY, groups.bands_of(log.item)),
    ):
        n, kept = len(names[name]), row[visit] >= 0
        each = np.zeros((len(chosen), n), np.int64)
        np.add.at(each, (row[visit][kept], codes[kept]), 1)
        found[name] = each, np.bincount(codes, minlength=n)
    came = visit_bin(place[first])
    found[VISITS] = np.eye(len(VISITED), dtype=np.int64)[came[chosen]], np.bincount(came, minlength=len(VISITED))
    return found


def _each(rows: list[IntArray], n: int) -> _Counts:
    """[rows, n] how often each row has each bin."""
    counted = [np.bincount(row, minlength=n) for row in rows]
    return np.array(counted, np.int64).reshape(len(rows), n)
