"""An increment learns what is new, keeps what the run had, and says what it cannot do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model.cli.train_evaluate import train_app
from model.data.dataset import Dataset, sequences
from model.errors import ConfigError, RunError
from model.evaluation.bootstrap import paired_bootstrap
from model.training.increment.memory import MEMORY, Memory
from model.training.increment.settings import IncrementSettings, increment_config
from model.training.increment.start import start_from
from model.training.increment.trainer import IncrementTrainer
from model.training.reports import Tick
from model.training.run_folder import BEST, CHECKPOINT, Run, load_tensors, save_tensors
from model.training.validation import validation_gains
from tests.support.data_builders import tiny_dataset
from tests.support.increments import NEW_ITEMS, Grown

pytestmark = pytest.mark.usefixtures("one_thread")

NAIVE = IncrementSettings(strength=0.0, replay=0.0)
HELD = IncrementSettings(strength=0.1)


@pytest.fixture(scope="module")
def made(grown_run: Grown) -> Grown:
    return grown_run


@pytest.fixture(scope="module")
def learned(made: Grown, tmp_path_factory: pytest.TempPathFactory) -> IncrementTrainer:
    trainer = made.trainer(tmp_path_factory.mktemp("increment") / "run", HELD)
    trainer.fit()
    return trainer


def test_vocabularies_only_grow_and_the_run_stays_as_it_was(made: Grown, learned: IncrementTrainer) -> None:
    old, new = Run.open(made.run), Run.open(learned.folder)
    n = old.network.n_items
    assert learned.split.sequences.item_ids[:n] == Memory.load(made.run).item_ids  # type: ignore[union-attr]
    assert sorted(learned.split.sequences.item_ids[n:]) == list(NEW_ITEMS)
    np.testing.assert_array_equal(new.tokenizer.codes[:n], old.tokenizer.codes)
    assert new.tokenizer.code_sizes == old.tokenizer.code_sizes
    for slot, rows in old.context.values.items():
        assert rows.items() <= new.context.values[slot].items()
    kept = {"max_length", "network", "size", "codes_weight", "repeats"}
    assert all(getattr(new.config, name) == getattr(old.config, name) for name in kept)
    assert Run.open(made.run).model().config == old.network


def test_new_items_are_listed(learned: IncrementTrainer) -> None:
    n, new = learned.start.n_old, len(NEW_ITEMS)
    assert learned.new_rows.by_content == new
    model = Run.open(learned.folder).model()
    log = learned.split.sequences
    with torch.no_grad():
        item = torch.tensor([[n - 1, i] for i in range(n)])
        h = model(item, torch.ones_like(item), torch.zeros_like(item) + log.time_ms[0])
        slots = torch.zeros(len(item), model.config.n_slots, dtype=torch.int64)
        scores = model.query(h[:, -1], slots, torch.full((len(item),), -1)) @ model.item_table()[:-2].T
    listed = scores.topk(10, dim=1).indices.numpy()
    assert all((listed == item).any() for item in range(n, n + new)), "each is in the list of a history"


def test_an_increment_on_the_data_of_the_run_loses_no_quality_beyond_noise(made: Grown, tmp_path: Path) -> None:
    start = start_from(made.run, made.old, None, tmp_path)
    log = sequences(start.data.dataset)
    config = increment_config(start.run, log, start.memory.new_from_ms)
    trainer = IncrementTrainer(start, tmp_path, config, HELD)
    trainer.fit()
    ours, theirs = [
        validation_gains(Run.open(folder).model(), replace(trainer.split, valid=trainer.split.test),
                         trainer.vocabulary, 1000)
        for folder in (tmp_path, made.run)
    ]  # fmt: skip
    assert paired_bootstrap(ours, theirs, samples=1000).high >= 0


def test_the_weights_stay_nearer_the_stronger_they_are_held(made: Grown, tmp_path: Path) -> None:
    distance = []
    for strength in (0.0, 0.1, 1e6):
        trainer = made.trainer(tmp_path / f"{strength}", IncrementSettings(strength=strength))
        old = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train_epoch()
        n = trainer.start.n_old
        moved = {name: (p.detach() - old[name]).square() for name, p in trainer.model.named_parameters()}
        moved["item.weight"][n:-2] = 0  # nothing holds new items
        distance.append(sum(float(square.sum()) for square in moved.values()))
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.05 * distance[0]


def test_a_resumed_increment_equals_an_uninterrupted_one(made: Grown, tmp_path: Path) -> None:
    def interrupt(tick: Tick) -> None:
        if tick.epoch == 1:
            raise KeyboardInterrupt

    settings = replace(HELD, keep_encoder=True)
    made.trainer(tmp_path / "whole", settings, "max_epochs=3").fit()
    with pytest.raises(KeyboardInterrupt):
        made.trainer(tmp_path / "broken", settings, "max_epochs=3").fit(report=interrupt)
    with pytest.raises(RunError, match=r"in another way(?s:.*)resume with the same"):
        made.trainer(tmp_path / "broken", HELD, "max_epochs=3", resume=True)
    made.trainer(tmp_path / "broken", settings, "max_epochs=3", resume=True).fit()
    for name in (BEST, CHECKPOINT):
        whole, broken = (load_tensors(tmp_path / run / name)[0] for run in ("whole", "broken"))
        assert whole.keys() == broken.keys()
        assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_only_new_events_with_the_old_data_give_the_same_increment(made: Grown, tmp_path: Path) -> None:
    one = start_from(made.run, made.all, None, tmp_path).data
    two = start_from(made.run, made.new, made.old, tmp_path).data
    assert one.path == two.path == tmp_path / "data"
    assert one.dataset.items.equals(two.dataset.items.select(one.dataset.items.columns))
    order = ["user_id", "timestamp", "item_id"]
    assert one.dataset.events.sort(order).equals(two.dataset.events.sort(order))
    two.save()
    assert sequences(Dataset.load(two.path)).item_ids == sequences(one.dataset).item_ids


def test_what_does_not_fit_is_refused_by_name(made: Grown, tmp_path: Path) -> None:
    run, log = Run.open(made.run), sequences(Dataset.load(made.all))
    for wrong in ("network.d_model=64", "tokenizer=atomic", "split=leave_one_out"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0] + " cannot change in an increment"):
            increment_config(run, log, 0, None, [wrong])
    with pytest.raises(RunError, match=r"holds only new events(?s:.*)--old"):
        other = tiny_dataset(users=5)
        items = other.items.with_columns(item_id="x" + other.items["item_id"])
        events = other.events.with_columns(item_id="x" + other.events["item_id"])
        Dataset.of("x", events, items, other.users, has_time=True, category_kind="path").save(tmp_path / "other")
        start_from(made.run, tmp_path / "other", None, tmp_path)
    with pytest.raises(RunError, match="no item in common"):
        start_from(made.run, tmp_path / "other", made.old, tmp_path)
    with pytest.raises(RunError, match="needs times"):
        tiny_dataset(users=5, has_time=False).save(tmp_path / "timeless")
        start_from(made.run, tmp_path / "timeless", None, tmp_path)
    with pytest.raises(ConfigError, match="--replay must be between 0 and 1"):
        IncrementSettings(replay=2)
    with pytest.raises(RunError, match=r"no event that the run has not learned(?s:.*)--replay"):
        start = start_from(made.run, made.all, None, tmp_path)
        late = replace(start, memory=replace(start.memory, new_from_ms=2**60))
        IncrementTrainer(late, tmp_path / "nothing", replace(run.config, split="time"), NAIVE)


def test_a_memory_of_another_format_is_named_and_a_missing_one_is_made_again(made: Grown, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.run, run)
    tensors, meta = load_tensors(run / MEMORY)
    save_tensors(run / MEMORY, tensors, meta | {"format": 7})
    with pytest.raises(RunError, match=r"format 7, this version reads 1(?s:.*)remove the file"):
        start_from(run, made.all, None, tmp_path / "out")
    (run / MEMORY).unlink()
    again = start_from(run, made.all, None, tmp_path / "out").memory
    first = Memory.load(made.run)
    assert first is not None and again.item_ids == first.item_ids and again.new_from_ms == first.new_from_ms
    assert all(torch.equal(value, first.fisher[name]) for name, value in again.fisher.items())
    np.testing.assert_array_equal(again.cold_vectors, first.cold_vectors)
    about = json.loads((run / "run.json").read_text("utf-8"))
    assert "increment" not in about


def test_the_command_goes_on_from_a_run_and_leaves_one_that_can_be_gone_on_from(made: Grown, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["--init", str(made.run), "--data", str(made.new), "--old", str(made.old), "--out", str(out)]
    done = CliRunner().invoke(train_app, [*asked, "--ewc", "0.1", "--set", "max_epochs=1", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["run"] == str(out) and said["protocol"].startswith("split by time")
    assert "2 items (2 by content" in done.stderr and "held with strength 0.1" in done.stderr
    increment = Run.open(out).increment
    assert increment is not None and (increment["strength"], increment["kept"]) == (0.1, [])
    before, after = Memory.load(made.run), Memory.load(out)
    assert before is not None and after is not None and after.new_from_ms > before.new_from_ms
    assert after.positions > before.positions and after.fisher.keys() == before.fisher.keys()
    assert after.fisher["item.weight"].shape == Run.open(out).model().item.weight.shape
    for wrong in (["--ewc", "much"], ["--set", "size=small"]):
        assert CliRunner().invoke(train_app, [*asked[:-1], str(tmp_path / "no"), *wrong]).exit_code == 2
    assert CliRunner().invoke(train_app, [*asked[2:], "--keep-encoder"]).exit_code == 2
