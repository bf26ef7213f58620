"""Weights learned from synthetic choices: what was put in comes out, noise does not, and nothing to learn is said."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import LearningError
from model.evaluation.metrics import ndcg
from model.ranking.candidates import CandidateTable, blocks_of
from model.ranking.held_out import Folds, ranks_of
from model.ranking.learning import LEAST_ANSWERED, learn, network_prior
from model.ranking.likelihood import Prior, fit, log_likelihoods
from service.artifact.array_types import Float64Array, IntArray

NAMES = ("path", "dense", "item_cf", "transitions", "trend")
TODAY = {"path": 0.1, "dense": 0.9}


def choices(
    weights: Sequence[float] | Sequence[Sequence[float]] | Float64Array,
    questions: int,
    *,
    seed: int = 0,
    size: int = 20,
    groups: Sequence[str] = (),
    group: IntArray | None = None,
) -> CandidateTable:
    """Questions whose targets are drawn by the softmax of a weighted sum; weights may differ by group."""
    rng = np.random.default_rng(seed)
    table = np.asarray(weights, np.float64)
    values = rng.random((questions, size, table.shape[-1])).astype(np.float32)
    values[:, :, :2] *= 5
    of_question = np.broadcast_to(table, (questions, len(table))) if group is None else table[group]
    score = np.einsum("qcf,qf->qc", values, of_question) + rng.gumbel(size=(questions, size))
    return CandidateTable(
        NAMES[: table.shape[-1]],
        np.arange(questions + 1) * size,
        values.reshape(-1, table.shape[-1]),
        score.argmax(axis=1) + np.arange(questions) * size,
        np.zeros(questions, np.int64) if group is None else group,
        tuple(groups),
    )


def everything(candidates: CandidateTable) -> IntArray:
    return np.flatnonzero(candidates.answered)


# -- the likelihood, against plain loops


@st.composite
def ragged(draw: st.DrawFn) -> tuple[CandidateTable, list[float]]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    signals = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.choice([-20.0, -1.0, 0.0, 0.5, 1.0], size=(int(offsets[-1]), signals)).astype(np.float32)
    chosen = offsets[:-1] + rng.integers(lengths)
    target = np.where(rng.random(len(lengths)) < 0.8, chosen, -1)
    weights = draw(st.lists(st.floats(-3, 3), min_size=signals, max_size=signals))
    return CandidateTable(tuple("abc"[:signals]), offsets, values, target), weights


@given(ragged())
@settings(max_examples=60, deadline=None)
def test_the_likelihood_and_the_ranks_are_those_of_plain_loops(case: tuple[CandidateTable, list[float]]) -> None:
    candidates, weights = case
    likelihoods, ranks = [], []
    for question in everything(candidates):
        rows = range(candidates.offsets[question], candidates.offsets[question + 1])
        score = {r: sum(w * float(v) for w, v in zip(weights, candidates.values[r], strict=True)) for r in rows}
        target = int(candidates.target[question])
        top = max(score.values())
        likelihoods.append(score[target] - top - math.log(sum(math.exp(s - top) for s in score.values())))
        ranks.append((sum(s > score[target] + 1e-4 for s in score.values()),
                      sum(s >= score[target] - 1e-4 for s in score.values()) - 1))  # fmt: skip
    blocks = blocks_of(candidates, everything(candidates))
    found = [x for block in blocks for x in log_likelihoods(block, np.array(weights))]
    np.testing.assert_allclose(found, likelihoods, atol=1e-3)
    for rank, (least, most) in zip([x for b in blocks for x in ranks_of(b, np.array(weights))], ranks, strict=True):
        assert least <= rank <= most


@given(ragged())
@settings(max_examples=40, deadline=None)
def test_no_weights_nearby_are_more_probable_than_the_fitted_ones(case: tuple[CandidateTable, list[float]]) -> None:
    candidates, mean = case
    blocks = blocks_of(candidates, everything(candidates))
    prior = Prior.around(np.array(mean), 1.0)

    def posterior(w: Float64Array) -> float:
        return sum(float(log_likelihoods(b, w).sum()) for b in blocks) - 0.5 * float(((w - prior.mean) ** 2).sum())

    best = fit(blocks, prior).weights
    for at in range(len(best)):
        for step in (-0.05, 0.05):
            moved = best.copy()
            moved[at] += step
            assert posterior(moved) <= posterior(best) + 1e-3


# -- what comes out


def test_known_weights_are_recovered_within_their_errors() -> None:
    true = np.array([0.3, 0.6, 2.0, 3.0])
    learned = learn(choices(true, 1500), TODAY)
    errors = np.sqrt(np.diag(np.array(learned.about["covariance"])))
    found = np.array([learned.weights[name] for name in NAMES[:4]])
    assert (np.abs(found - true) < 4 * errors).all()
    assert (errors < 0.2).all()
    assert learned.about["held_out"]["learned"]["ndcg@10"] > learned.about["held_out"]["today"]["ndcg@10"]


def test_a_signal_that_says_nothing_is_dropped_and_the_ablation_shows_it() -> None:
    learned = learn(choices([0.3, 0.6, 2.0, 3.0, 0.0], 800, seed=1), TODAY)
    assert learned.about["dropped"] == ["trend"]
    assert "trend" not in learned.weights
    ablation = learned.about["ablation"]
    assert ablation["trend"]["loss"] < ablation["trend"]["standard_error"]
    assert ablation["transitions"]["loss"] > 3 * ablation["transitions"]["standard_error"]


def test_noise_alone_does_not_drop_the_networks_scores() -> None:
    learned = learn(choices([0.05, 0.6, 2.0], 100, seed=2), TODAY, positive=("path", "dense"))
    assert learned.weights["path"] > 0
    assert learned.about["dropped"] == []


def test_a_score_that_speaks_for_an_item_never_counts_against_it() -> None:
    candidates = choices([-0.3, 0.6, 2.0], 400, seed=2)
    assert learn(candidates, TODAY).weights["path"] < 0
    learned = learn(candidates, TODAY, positive=("path", "dense"))
    assert "path" not in learned.weights
    assert learned.about["dropped"] == ["path"]
    assert learned.weights["dense"] > 0


def test_where_today_s_weights_are_right_they_stay() -> None:
    learned = learn(choices([0.1, 0.9, 0.0, 0.0], 400, seed=3), TODAY)
    assert learned.weights == TODAY
    assert learned.about["learned"] is False


@pytest.mark.parametrize("answered", [0, 20, LEAST_ANSWERED - 1])
def test_with_too_few_questions_the_weights_are_today_s(answered: int) -> None:
    few = choices([0.3, 0.6, 2.0, 3.0], 200)
    none = CandidateTable(few.names, few.offsets, few.values, np.where(np.arange(200) < answered, few.target, -1))
    learned = learn(none, TODAY)
    assert learned.weights == TODAY
    assert learned.about == {"questions": 200, "answered": answered, "learned": False, "prior": TODAY}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize(("signal", "fix"), [("transitions", "data set"), ("dense", "train the model again")])
def test_values_that_are_not_finite_are_an_error_that_names_the_signal(value: float, signal: str, fix: str) -> None:
    candidates = choices([0.3, 0.6, 2.0, 3.0], 120)
    candidates.values[777, NAMES.index(signal)] = value
    for weights in (lambda: learn(candidates, TODAY), lambda: network_prior(candidates)):
        with pytest.raises(LearningError, match=rf"values of {signal} are not finite(.|\n)*{fix}"):
            weights()


def test_weights_from_large_values_are_finite() -> None:
    candidates = choices([0.3, 0.6, 2.0, 3.0], 120)
    candidates.values[:, 1] *= 1e7
    learned = learn(candidates, TODAY, positive=("path", "dense"))
    assert all(math.isfinite(weight) for weight in learned.weights.values())


def test_questions_that_no_candidate_answers_count_against_the_figures_and_not_in_the_likelihood() -> None:
    whole = choices([0.3, 0.6, 2.0], 300, seed=4)
    target = whole.target.copy()
    target[::3] = -1
    folds = Folds(CandidateTable(whole.names, whole.offsets, whole.values, target))
    judged = folds.judged([np.array([0.3, 0.6, 2.0])] * 5)
    assert len(judged.log_likelihood) == 200
    assert judged.figures()["ndcg@10"] == pytest.approx(float(ndcg(judged.rank, 10).sum()) / 300, abs=1e-4)


def test_groups_get_weights_of_their_own_only_where_they_differ() -> None:
    group = np.arange(1200) % 2
    same = learn(
        choices([[0.3, 0.6, 2.0], [0.3, 0.6, 2.0]], 1200, seed=5, groups=("new", "active"), group=group), TODAY
    )
    other = learn(
        choices([[0.3, 0.6, 4.0], [0.3, 0.6, 0.5]], 1200, seed=5, groups=("new", "active"), group=group), TODAY
    )
    assert same.groups == {}
    assert set(other.groups) == {"new", "active"}
    assert other.groups["new"]["item_cf"] > other.weights["item_cf"] > other.groups["active"]["item_cf"]


def test_more_questions_bring_the_curve_no_lower_than_few_of_them() -> None:
    curve = learn(choices([0.3, 0.6, 2.0, 3.0], 800, seed=6), TODAY).about["curve"]
    assert [point["questions"] for point in curve] == [100, 300, 640]
    assert curve[-1]["log_likelihood"] > curve[0]["log_likelihood"]


def test_the_same_questions_give_the_same_weights_bit_for_bit() -> None:
    first, second = (learn(choices([0.3, 0.6, 2.0], 300, seed=7), TODAY) for _ in range(2))
    assert first.weights == second.weights
    assert first.about == second.about


def test_the_covariance_is_that_of_weights_learned_from_other_draws_of_the_questions() -> None:
    candidates = choices([0.3, 0.6, 2.0], 400, seed=8)
    prior = Prior.around(np.zeros(3), 0.01)
    said = np.sqrt(np.diag(fit(blocks_of(candidates, everything(candidates)), prior).covariance(prior.free)))
    rng = np.random.default_rng(0)
    drawn = [fit(blocks_of(candidates, rng.integers(400, size=400)), prior).weights for _ in range(60)]
    np.testing.assert_allclose(np.std(drawn, axis=0), said, rtol=0.35)


def test_the_prior_is_the_most_likely_mixture_of_both_scores_and_the_first_where_nothing_tells() -> None:
    assert network_prior(choices([0.5, 0.5, 0.0], 600, seed=9), (1.0, 0.5, 0.0)) == {"path": 0.5, "dense": 0.5}
    assert network_prior(choices([0.5, 0.5, 0.0], 10), (1.0, 0.5, 0.0)) == {"dense": 1.0}
