"""What signals and events contributed to an item's score, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import SignalPart
from service.signals.contributions import contributions, main_events, weighted_values
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

N = 12
WEIGHTS = {"path": 2.0, "item_cf": 1.5, "walk": -0.5, "repeat": 0.25, "popularity": 0.1}


def table(seed: int, horizon: int) -> NeighbourTable:
    rng = np.random.default_rng(seed)
    neighbour = np.stack([rng.permutation(np.delete(np.arange(N), item))[:4] for item in range(N)]).astype(np.int32)
    return NeighbourTable(neighbour, -np.sort(-rng.random((N, 4), np.float32)), 0.8, horizon)


def ranker(seed: int) -> Ranker:
    parts: dict[str, SignalPart] = {
        "item_cf": table(seed, 5), "walk": table(seed + 1, 3), "repeat": OwnItems(N, 0.9),
        "popularity": ItemColumn(np.arange(N, dtype=np.float32)),
    }  # fmt: skip
    return Ranker.of(parts, RankerWeights(tuple(parts), {"default": WEIGHTS}))


def event_parts(ranked: Ranker, history: UserHistory, item: int) -> dict[str, list[float]]:
    """The weighted term of each event of the log, then of each entry of what came before it, by signal."""
    events, before = history.items.tolist(), history.before
    parts: dict[str, list[float]] = {}
    for name in ("item_cf", "walk"):
        signal = next(s for s in ranked.user_signals if s.name == name)
        found: NeighbourTable = signal.table  # type: ignore[attr-defined]
        top = max(found.scores(history.items).tolist(), default=0.0)
        terms = []
        for age, event in enumerate(reversed(events)):
            known = 0 <= event < N and age < found.horizon
            pairs = zip(found.neighbour[event], found.similarity[event], strict=True) if known else ()
            terms.append(sum(float(s) * found.decay**age / top for other, s in pairs if other == item and top))
        parts[name] = [WEIGHTS[name] * term for term in reversed(terms)] + [0.0] * len(before)
    value = float(ranked.signal("repeat", history).of(np.array([item]))[0])
    counts = [float(event == item) for event in events]
    counts += [
        float(count * (other == item))
        for other, count in zip(before.items.tolist(), before.counts.tolist(), strict=True)
    ]
    parts["repeat"] = [WEIGHTS["repeat"] * value * count / max(sum(counts), 1) for count in counts]
    return parts


histories = st.builds(
    lambda items, kept: UserHistory.of(np.array(items, np.int64), 1000 * np.arange(1, len(items) + 1), kept),
    st.lists(st.integers(-1, N + 1), max_size=9),
    st.integers(1, 9),
)


@given(st.integers(0, 30), histories, st.data())
@settings(max_examples=60, deadline=None)
def test_contributions_add_up_to_the_score_above_the_mean_of_the_candidates(
    seed: int, history: UserHistory, data: st.DataObject
) -> None:
    ranked = ranker(seed)
    candidates = np.array(data.draw(st.permutations(range(N))), np.int64)[: data.draw(st.integers(0, N))]
    path = np.random.default_rng(seed).standard_normal(len(candidates))
    weighted = {"path": WEIGHTS["path"] * path} | weighted_values(ranked, history, candidates)
    found = contributions(weighted, candidates, np.arange(N))
    score = WEIGHTS["path"] * path + ranked.user(history).of(candidates) + ranked.bias()[candidates]
    place = {item: at for at, item in enumerate(candidates.tolist())}
    for item in range(N):
        assert found.candidate[item] == (item in place)
        expected = score[place[item]] - score.mean() if item in place else 0.0
        assert float(found.values[item].sum()) == pytest.approx(expected, abs=1e-5)
    assert found.of(frozenset({"path"})).tolist() == found.values[:, 0].tolist()


@given(st.integers(0, 30), histories)
@settings(max_examples=60, deadline=None)
def test_the_main_event_is_the_one_with_the_largest_term(seed: int, history: UserHistory) -> None:
    ranked = ranker(seed)
    for item, found in enumerate(main_events(ranked, history, np.arange(N))):
        parts = event_parts(ranked, history, item)
        total = np.sum(list(parts.values()), axis=0)
        if found is None:
            assert not len(total) or total.max() <= 1e-6
            continue
        place = found.place if found.in_log else len(history) + found.place
        assert total[place] == pytest.approx(total.max(), abs=1e-5)
        assert found.share == pytest.approx(total[place] / np.maximum(total, 0).sum(), abs=1e-5)
        assert parts[found.signal][place] == pytest.approx(max(part[place] for part in parts.values()), abs=1e-5)
