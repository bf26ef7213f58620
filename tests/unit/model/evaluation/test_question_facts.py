"""What is said of the targets, against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.data.dataset import sequences
from model.data.split import Split, leave_one_out
from model.evaluation import question_facts as facts
from model.evaluation.question_facts import QuestionFacts, question_facts
from tests.support.data_builders import tiny_dataset


def split(seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    log = sequences(tiny_dataset(40, 15, seed=seed))
    coarse = np.concatenate([np.sort(rng.integers(0, 6, n)) for n in log.lengths])
    return leave_one_out(replace(log, time_ms=coarse * 1000, item=rng.integers(0, 15, log.n_events)))


@pytest.mark.parametrize("batch", [3, 4096])
def test_the_shares_are_those_of_plain_loops(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_BATCH", batch)
    made = split()
    log, questions = made.sequences, made.test
    repeats = ties = 0
    for i in range(len(questions)):
        rows = range(*made.history(questions, i).indices(log.n_events))
        repeats += any(log.item[row] == questions.target[i] for row in rows)
        ties += bool(rows) and log.time_ms[rows[-1]] == log.time_ms[rows[-1] + 1]
    found = question_facts(made, questions)
    assert 0 < repeats < len(questions)
    assert found.repeats == pytest.approx(repeats / len(questions), abs=1e-4)
    assert found.ties == pytest.approx(ties / len(questions), abs=1e-4)


def test_many_ties_are_a_warning_and_few_are_none() -> None:
    assert "47.3% of the targets" in QuestionFacts(0.0, 0.473).warnings()[0]
    assert QuestionFacts(0.0, 0.02).warnings() == ()


def test_a_log_without_times_has_no_ties() -> None:
    made = split()
    untimed = replace(made, sequences=replace(made.sequences, has_time=False))
    assert question_facts(untimed, untimed.test).ties is None
    assert question_facts(untimed, untimed.test).warnings() == ()
