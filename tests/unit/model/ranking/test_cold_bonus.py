"""The bonus of cold items, against loops over questions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ranking.candidates import CandidateTable
from model.ranking.cold_bonus import BELOW, BONUSES, LOSS, OUT, choose_bonus, learn_with_bonus

N_QUESTIONS, N_CANDIDATES = 130, 14


def random_candidates(seed: int, cold: float, spread: float) -> CandidateTable:
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
    return CandidateTable(("score", "cold"), offsets, values, target, group, ("one", "two"))


def slow_values(candidates: CandidateTable, weights: dict[str, float], bonus: float) -> list[tuple[float, float]]:
    values = []
    for question, target in enumerate(candidates.target.tolist()):
        if target < 0:
            values.append((0.0, 0.0))
            continue
        group = candidates.groups[candidates.group[question]]
        weight = np.float32(weights.get(group, weights["default"]))
        rows = range(int(candidates.offsets[question]), int(candidates.offsets[question + 1]))
        score = {row: weight * candidates.values[row, 0] + bonus * candidates.values[row, 1] for row in rows}
        rank = sum(score[row] >= score[target] for row in rows) - 1
        values.append((1.0, 1 / math.log2(rank + 2)) if rank < 10 else (0.0, 0.0))
    return values


def slow_figures(candidates: CandidateTable, weights: dict[str, float], bonus: float) -> tuple[float, float]:
    hits, gain = zip(*slow_values(candidates, weights, bonus), strict=True)
    return sum(hits) / len(candidates), sum(gain) / len(candidates)


def slow_smoothed(losses: list[float]) -> list[float]:
    """The best of what both powers, one of them and none of them can fit with coefficients of at least 0."""
    best, smooth = math.inf, [0.0] * len(BONUSES)
    for powers in ((1, 2), (1,), (2,), ()):
        columns = np.array([[bonus**power for power in powers] for bonus in BONUSES])
        coefficients = np.linalg.lstsq(columns, np.array(losses), rcond=None)[0] if powers else np.zeros(0)
        fitted = columns @ coefficients
        off = float(((fitted - losses) ** 2).sum())
        if (coefficients >= 0).all() and off < best - 1e-15:
            best, smooth = off, fitted.tolist()
    return smooth


@given(st.integers(0, 999), st.sampled_from([0.0, 0.02, 0.5]), st.sampled_from([0.3, 2.0]))
@settings(max_examples=12)
def test_the_bonus_is_the_largest_that_costs_little_as_all_smaller_ones_do(
    seed: int, cold: float, spread: float
) -> None:
    candidates = random_candidates(seed, cold, spread)
    weights = {"default": 1.0, "two": 0.5}
    expect_below(candidates, weights) if costs_too_much(candidates, weights, 0.0) else expect_above(candidates, weights)
    if cold == 0:
        assert choose_bonus(candidates, groups_of(weights)).bonus == BONUSES[-1]


def groups_of(weights: dict[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"score": weight} for name, weight in weights.items()}


def costs_too_much(candidates: CandidateTable, weights: dict[str, float], bonus: float) -> bool:
    """Whether more than `LOSS` and a standard error is lost against keeping cold items out."""
    before = np.array(slow_values(candidates, weights, OUT))
    lost = before - np.array(slow_values(candidates, weights, bonus))
    error = lost.std(axis=0) * math.sqrt(len(lost))
    return bool((lost.sum(axis=0) - error > LOSS * before.sum(axis=0) + 1e-9).any())


def expect_below(candidates: CandidateTable, weights: dict[str, float]) -> None:
    """The bonus is below 0, as 0 costs too much against keeping all cold items out."""
    found = choose_bonus(candidates, groups_of(weights))
    expected = OUT
    for bonus in BELOW:
        if costs_too_much(candidates, weights, bonus):
            break
        expected = bonus
    assert found.bonus == expected
    assert [trial["bonus"] for trial in found.trials] == [OUT, *BELOW]


def expect_above(candidates: CandidateTable, weights: dict[str, float]) -> None:
    """The bonus is 0 or above, by smoothed losses."""
    found = choose_bonus(candidates, groups_of(weights))
    figures = [slow_figures(candidates, weights, bonus) for bonus in BONUSES]
    losses = [
        [1 - one / at_0 for one in column] for column, at_0 in zip(zip(*figures, strict=True), figures[0], strict=True)
    ]
    smooth = [slow_smoothed(column) for column in losses]
    expected = 0.0
    for at, bonus in enumerate(BONUSES):
        if max(column[at] for column in smooth) > LOSS or max(column[at] for column in losses) > 2 * LOSS:
            break
        expected = bonus
    assert found.bonus == expected
    for at, trial in enumerate(found.trials):
        assert trial["bonus"] == BONUSES[at]
        for name, value, column in zip(("recall@10", "ndcg@10"), figures[at], smooth, strict=True):
            assert abs(trial[name] - value) < 1e-4
            assert abs(trial[f"{name}_lost"] - column[at]) < 1e-4


def test_without_answers_there_is_no_bonus() -> None:
    candidates = random_candidates(0, 0.5, 1.0)
    nothing = replace(candidates, target=np.full(N_QUESTIONS, -1))
    assert choose_bonus(nothing, {"default": {"score": 1.0}}).to_json()["bonus"] == 0
    last = candidates.values.copy()
    last[candidates.target[candidates.target >= 0], 0] = -9
    found = choose_bonus(replace(candidates, values=last), {"default": {"score": 1.0}})
    assert found.bonus == 0 and not found.trials, "no target is among the first ten"


def test_a_bonus_is_chosen_beside_weights_that_nothing_speaks_against_and_the_entry_says_by_what() -> None:
    candidates = random_candidates(1, 0.02, 0.3)
    noise = candidates.values.copy()
    noise[:, 0] = np.random.default_rng(0).normal(size=len(noise))
    learned = learn_with_bonus(replace(candidates, values=noise), {"score": 0.1})
    chosen = choose_bonus(replace(candidates, values=noise), {"default": {"score": 0.1}})
    assert learned.about["learned"] is False
    assert learned.weights == chosen.added_to({"score": 0.1})
    assert learned.about["cold"] == chosen.to_json()
    assert learned.about["cold"]["trials"]


def test_every_group_of_users_gets_the_bonus() -> None:
    candidates = random_candidates(2, 0.02, 2.0)
    learned = learn_with_bonus(candidates, {"score": 0.1})
    bonus = learned.about["cold"]["bonus"]
    assert learned.about["learned"]
    assert {weights.get("cold", 0.0) for weights in (learned.weights, *learned.groups.values())} == {bonus}


def test_with_too_few_answers_there_is_neither_weight_nor_bonus() -> None:
    candidates = random_candidates(3, 0.02, 2.0)
    few = replace(candidates, target=np.where(np.arange(N_QUESTIONS) < 60, candidates.target, -1))
    learned = learn_with_bonus(few, {"score": 0.1})
    assert learned.weights == {"score": 0.1}
    assert learned.about["cold"] == {"bonus": 0.0, "loss_allowed": LOSS, "trials": []}
