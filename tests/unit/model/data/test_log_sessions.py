"""Sessions that events name: kept with the events through splits, cuts and methods, and read where a network does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.data.dataset import Dataset, sequences
from model.data.query_histories import history_events
from model.data.split import leave_one_out, time_boundaries, time_split
from model.errors import ConfigError
from model.training.batches import BatchPlan, cut
from model.training.config import TrainConfig
from model.training.methods.random_clicks import with_random_clicks
from model.training.methods.truncation import only
from model.training.run_folder import Run
from model.training.trainer import Trainer
from model.training.validation import validation_ndcg
from service.artifact.features import ContextVocabulary, Vocabulary
from service.artifact.session_marks import NO_SESSION, mark_number, mark_of
from tests.support.data_builders import tiny_dataset


def log() -> Dataset:
    """A log in which every third event names no session."""
    dataset = tiny_dataset(users=12)
    named = pl.when(pl.int_range(pl.len()) % 3 != 0).then("session_id")
    return replace(dataset, events=dataset.events.with_columns(session_id=named))


def numbers(events: pl.DataFrame) -> dict[tuple[str, str, int], int]:
    return {
        (user, item, time): NO_SESSION if session is None else mark_number(mark_of(session))
        for user, item, time, session in events.select("user_id", "item_id", "timestamp", "session_id").iter_rows()
    }


def test_every_part_of_a_log_keeps_the_sessions_of_its_events() -> None:
    dataset = log()
    of_event, whole = numbers(dataset.events), sequences(dataset)
    assert NO_SESSION in of_event.values() and len(set(of_event.values())) > 20
    parts = [whole, leave_one_out(whole, None).train, time_split(whole, *time_boundaries(whole, 0.1, 0.1)).train]
    parts.append(only(whole, np.arange(whole.n_events) % 4 > 0))
    for part in parts:
        assert part.session is not None and len(part.session) == part.n_events
        for u, user in enumerate(part.user_ids):
            for row in range(part.offsets[u], part.offsets[u + 1]):
                event = (user, part.item_ids[part.item[row]], int(part.time_ms[row]))
                assert part.session[row] == of_event[event]
    noisy = with_random_clicks(whole, 0.5, 0)
    assert noisy.session is not None and len(noisy.session) == noisy.n_events > whole.n_events
    none = dataset.events.with_columns(session_id=pl.lit(None, pl.String))
    assert sequences(replace(dataset, events=none)).session is None


def test_batches_and_histories_have_the_session_of_each_input_and_none_for_the_start() -> None:
    whole = sequences(log())
    assert whole.session is not None
    for batch in BatchPlan(cut(whole, 5, 2), 40, 0).batches(0, whole.n_items + 1):
        assert batch.session is not None
        for row, user in enumerate(batch.user.tolist()):
            span = whole.user(user)
            of_time = dict(zip(whole.time_ms[span].tolist(), whole.session[span].tolist(), strict=True))
            for item, time, session in zip(batch.item[row], batch.time_ms[row], batch.session[row], strict=True):
                if int(item) == whole.n_items + 1:
                    assert int(session) == NO_SESSION
                elif int(session):
                    assert int(session) == of_time[int(time)]
    reads = Vocabulary.of(whole.item_ids, ContextVocabulary(), has_time=True, reads_sessions=True)
    events = history_events(whole, 3, int(whole.offsets[4]), reads)
    assert events.session is not None and events.session.tolist() == whole.session[whole.user(3)].tolist()
    started = reads.with_start(events)
    assert started.session is not None and started.session[0] == NO_SESSION and len(started.session) == len(started)
    plain = replace(reads, reads_sessions=False)
    assert history_events(whole, 3, int(whole.offsets[4]), plain).session is None


def test_a_training_reads_the_sessions_and_its_run_says_so(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "encoder": "hierarchy", "size": "tiny", "max_epochs": 1, "max_length": 16, "validation_users": 6,
        "network": {"session_ids": True, "layers": 1},
    }  # fmt: skip
    trainer = Trainer(log(), tmp_path / "data", tmp_path / "run", TrainConfig(**settings))
    batch = next(trainer.plan.batches(0, trainer.network.n_items + 1))
    assert batch.session is not None
    trainer.average.eval()
    trainer.model.eval()
    losses = [trainer.loss_of(one).item() for one in (batch, replace(batch, session=batch.session * 0))]
    assert losses[0] != losses[1]
    trainer.fit()
    run = Run.open(tmp_path / "run")
    assert run.network.session_ids and run.vocabulary(["a"]).reads_sessions
    with_names = validation_ndcg(run.model(), trainer.split, trainer.vocabulary, 100, exclude_history=True)
    assert 0.0 <= with_names <= 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["encoder=gated_linear"], "no effect with the encoder gated_linear"),
        (["encoder=hierarchy", "methods.augment=0.1"], r"methods\.augment reads no sessions"),
        (["encoder=hierarchy", "methods.pretrain_epochs=1"], r"methods\.pretrain_epochs reads no sessions"),
    ],
)
def test_what_reads_no_sessions_is_refused_with_a_network_that_does(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.build(None, ["network.session_ids=true", *given])
