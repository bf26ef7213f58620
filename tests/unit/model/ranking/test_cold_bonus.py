"""The bonus of cold items, against loops over questions."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ranking.candidates import Candidates
from model.ranking.cold_bonus import BONUSES, LOSS, choose_bonus

N_QUESTIONS, N_CANDIDATES = 80, 14


def random_candidates(seed: int, cold: float, spread: float) -> Candidates:
    rng = np.random.default_rng(seed)
    rows = N_QUESTIONS * N_CANDIDATES
    is_cold = rng.random(rows) < cold
    target = np.arange(N_QUESTIONS) * N_CANDIDATES
    is_cold[target] = False
    values = np.column_stack([rng.normal(size=rows) * spread, is_cold]).astype(np.float32)
    values[target, 0] += 1
    target[rng.random(N_QUESTIONS) < 0.1] = -1
    group = rng.integers(0, 2, N_QUESTIONS)
    offsets = np.arange(N_QUESTIONS + 1) * N_CANDIDATES
    return Candidates(("score", "cold"), offsets, values, target, group, ("one", "two"))


def slow_figures(candidates: Candidates, weights: dict[str, float], bonus: float) -> tuple[float, float]:
    hits, gain = 0, 0.0
    for question, target in enumerate(candidates.target.tolist()):
        if target < 0:
            continue
        group = candidates.groups[candidates.group[question]]
        weight = np.float32(weights.get(group, weights["default"]))
        rows = range(int(candidates.offsets[question]), int(candidates.offsets[question + 1]))
        score = {row: weight * candidates.values[row, 0] + bonus * candidates.values[row, 1] for row in rows}
        rank = sum(score[row] >= score[target] for row in rows) - 1
        if rank < 10:
            hits, gain = hits + 1, gain + 1 / math.log2(rank + 2)
    return hits / len(candidates), gain / len(candidates)


@given(st.integers(0, 999), st.sampled_from([0.0, 0.02, 0.5]), st.sampled_from([0.3, 2.0]))
@settings(max_examples=15)
def test_the_bonus_is_the_largest_that_costs_little_as_all_smaller_ones_do(
    seed: int, cold: float, spread: float
) -> None:
    candidates = random_candidates(seed, cold, spread)
    weights = {"default": 1.0, "two": 0.5}
    found = choose_bonus(candidates, {name: {"score": weight} for name, weight in weights.items()}, "cold")
    expected, first = 0.0, slow_figures(candidates, weights, 0.0)
    for bonus in BONUSES:
        figures = slow_figures(candidates, weights, bonus)
        if any(one < at_0 * (1 - LOSS) for one, at_0 in zip(figures, first, strict=True)):
            break
        expected = bonus
    assert found.bonus == expected
    for trial in found.trials:
        hits, gain = slow_figures(candidates, weights, trial["bonus"])
        assert abs(trial["recall@10"] - hits) < 1e-4 and abs(trial["ndcg@10"] - gain) < 1e-4
    if cold == 0:
        assert found.bonus == BONUSES[-1]


def test_without_answers_there_is_no_bonus() -> None:
    candidates = random_candidates(0, 0.5, 1.0)
    few = Candidates(
        candidates.names,
        candidates.offsets,
        candidates.values,
        np.full(N_QUESTIONS, -1),
        candidates.group,
        ("one", "two"),
    )
    assert choose_bonus(few, {"default": {"score": 1.0}}, "cold").to_json()["bonus"] == 0
    worst = choose_bonus(candidates, {"default": {"score": -100.0}}, "cold")
    assert worst.bonus == 0 or worst.trials[0]["recall@10"] > 0
