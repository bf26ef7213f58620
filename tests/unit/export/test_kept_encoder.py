"""An increment that keeps the encoder keeps every state: bit for bit, and under the same version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.artifact_writer import write
from export.from_run import parts_of
from model.data.dataset import Dataset
from model.evaluation.baselines import Baselines, ItemCFConfig, fit_item_cf
from model.training.increment.settings import IncrementSettings
from model.training.increment.trainer import memory_of
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.artifact.scorers.popularity import Popularity
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from tests.support.increments import COLD_ITEM, NEW_ITEMS, Grown

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(grown_run: Grown) -> Grown:
    return grown_run


@pytest.fixture(scope="module")
def old(made: Grown, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return exported(made.run, tmp_path_factory.mktemp("old") / "artifact")


def exported(folder: Path, out: Path) -> Engine:
    """The artefact of a run, without weights of signals and without the parity gate."""
    run = Run.open(folder)
    dataset = Dataset.load(run.data_path())
    split, config = run.split(dataset), ItemCFConfig("cosine", 20, 0.8)
    popularity = Popularity.fit(split.train.item, split.train.n_items)
    parts = parts_of(run, dataset, split, Baselines(fit_item_cf(split.train, config), popularity, config, ()))
    out.mkdir()
    write(parts, out, "float32")
    return Engine(Artifact.open(out), device="cpu")


def increment(made: Grown, out: Path, *, keep: bool) -> Engine:
    trainer = made.trainer(out / "run", IncrementSettings(keep_encoder=keep, strength=0.01), "max_epochs=1")
    trainer.fit()
    memory_of(trainer, trainer.start.data.dataset, trainer.start.data.path).save(out / "run")
    return exported(out / "run", out / "artifact")


def encoded(engine: Engine, histories: list[list[str]]) -> list[EncoderState]:
    jobs = []
    for history in histories:
        times = [1_700_000_000_000 + 3_600_000 * n for n in range(len(history))]
        events = engine.artifact.vocabulary.events(history, ["view"] * len(history), times)
        jobs.append(EncodeJob(events=events, from_start=True))
    states = engine.encode(jobs)
    assert all(isinstance(state, EncoderState) for state in states)
    return [state for state in states if isinstance(state, EncoderState)]


def test_the_states_of_old_histories_are_the_same_and_new_items_make_others(
    made: Grown, old: Engine, tmp_path: Path
) -> None:
    new = increment(made, tmp_path / "new", keep=True)
    before, after = old.artifact.encoder_version, new.artifact.encoder_version
    assert before.name == after.name and after.steps[0] == before.steps[0]
    assert [step.items for step in after.steps] == [old.artifact.network["n_items"], new.artifact.network["n_items"]]
    rng = np.random.default_rng(0)
    ids = [*old.artifact.catalogue.item_ids, "nobody knows this"]
    histories = [[COLD_ITEM], *([ids[i] for i in rng.integers(0, len(ids), n)] for n in (1, 3, 8, 12, 20))]
    for one, two in zip(encoded(old, histories), encoded(new, histories), strict=True):
        np.testing.assert_array_equal(one.arrays["kv"], two.arrays["kv"])
        np.testing.assert_array_equal(one.h, two.h)
    index = new.artifact.vocabulary.item_index
    assert all(after.holds(before.steps[0].digest, history, index) for history in histories)
    fresh = [ids[0], NEW_ITEMS[0]]
    assert not after.holds(before.steps[0].digest, fresh, index)
    assert not np.array_equal(encoded(old, [fresh])[0].h, encoded(new, [fresh])[0].h)


def test_an_increment_that_moves_the_encoder_has_states_of_its_own(made: Grown, old: Engine, tmp_path: Path) -> None:
    new = increment(made, tmp_path / "new", keep=False)
    assert old.artifact.encoder_version.name != new.artifact.encoder_version.name
    assert len(new.artifact.encoder_version.steps) == 1
