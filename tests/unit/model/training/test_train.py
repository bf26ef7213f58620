"""Training on a small log with a pattern: it learns, repeats, resumes bit for bit, and sees no held-out event."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from model.cli.train_evaluate import evaluate_app, train_app
from model.data.dataset import NO_SCENE, Dataset, sequences
from model.data.split import leave_one_out
from model.errors import RunError
from model.evaluation.baselines import fit_baselines
from model.evaluation.evaluate import Histories, evaluate, popularity_ranker
from model.evaluation.rankers import network_ranker
from model.training.checkpoint import Progress
from model.training.conditions import Conditions, fit_context, item_controls
from model.training.config import TrainConfig
from model.training.reports import Tick
from model.training.run_folder import BEST, CHECKPOINT, Run, load_tensors
from model.training.trainer import Trainer
from model.training.validation import validation_ndcg
from service.artifact.features import GAP_UNKNOWN, ContextVocabulary, quantised_gap_ms
from tests.support.data_builders import tiny_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "size": "tiny",
    "batch_tokens": 200,
    "learning_rate": 1e-2,
    "warmup_steps": 5,
    "max_epochs": 4,
    "max_length": 16,
    "network": {"dropout": 0.1},
}


def config(**changed: Any) -> TrainConfig:
    return TrainConfig(**(QUICK | changed))


def train(folder: Path, dataset: Dataset, settings: TrainConfig, **how: Any) -> tuple[Trainer, Progress]:
    trainer = Trainer(dataset, Path("data"), folder, settings, **how)
    return trainer, trainer.fit()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset(users=60)


# -- it learns


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Progress]:
    return train(tmp_path_factory.mktemp("learnt") / "run", tiny_dataset(users=150), config(max_epochs=7))


def test_the_loss_falls(learnt: tuple[Trainer, Progress]) -> None:
    losses = [epoch["loss"] for epoch in learnt[1].history]
    # Eight batches are a small sample: a single epoch may be a little harder than the one before.
    assert losses[:3] == sorted(losses[:3], reverse=True)
    assert max(losses[3:]) < min(losses[:3])
    assert losses[-1] < 0.8 * losses[0]


def test_it_learns_the_pattern_that_popularity_cannot_know(learnt: tuple[Trainer, Progress]) -> None:
    trainer = learnt[0]
    systems = {
        "gpt4rec": network_ranker(trainer.average, trainer.vocabulary),
        "popular": popularity_ranker(fit_baselines(trainer.split).popularity),
    }
    figures = evaluate(systems, trainer.split, "test", samples=1).systems
    assert figures["gpt4rec"].figures["ndcg@10"] > 3 * figures["popular"].figures["ndcg@10"]  # type: ignore[operator]


def test_the_best_epoch_is_kept_and_is_what_a_run_opens_with(learnt: tuple[Trainer, Progress]) -> None:
    trainer, progress = learnt
    ndcg = [epoch["valid_ndcg@10"] for epoch in progress.history]
    assert progress.best_ndcg == max(ndcg)
    assert progress.best_epoch == int(np.argmax(ndcg))
    run = Run.open(trainer.folder)
    again = validation_ndcg(
        run.model(), trainer.split, trainer.vocabulary, 10**6, exclude_history=not run.config.repeats
    )
    assert again == pytest.approx(max(ndcg))
    assert not list(trainer.folder.rglob("*.pt")) + list(trainer.folder.rglob("*.pkl"))


def test_validation_measures_what_the_evaluation_measures(learnt: tuple[Trainer, Progress]) -> None:
    trainer = learnt[0]
    ranker = network_ranker(trainer.average, trainer.vocabulary)
    figures = evaluate({"gpt4rec": ranker}, trainer.split, "valid", samples=1).systems["gpt4rec"].figures
    ndcg = validation_ndcg(trainer.average, trainer.split, trainer.vocabulary, 10**6)
    assert figures["ndcg@10"] == pytest.approx(ndcg, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_collapsed_or_diverged_network_gains_nothing_on_validation(
    learnt: tuple[Trainer, Progress], value: float
) -> None:
    trainer = learnt[0]
    broken = Run.open(trainer.folder).model()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(value)
    assert validation_ndcg(broken, trainer.split, trainer.vocabulary, 10**6) < 0.2 * learnt[1].best_ndcg


# -- it repeats and resumes


def tensors_of(folder: Path, name: str = CHECKPOINT) -> dict[str, torch.Tensor]:
    return load_tensors(folder / name)[0]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module", params=[{}, {"negatives": 8, "tokenizer": "hierarchical"}], ids=["full", "sampled"])
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset
) -> tuple[Path, TrainConfig]:
    folder, settings = tmp_path_factory.mktemp("unbroken") / "run", config(**request.param)
    train(folder, dataset, settings)
    return folder, settings


@pytest.mark.parametrize(("epoch", "done"), [(2, 1), (2, 3), (1, 1)])
def test_resume_continues_bit_for_bit_wherever_the_run_was_interrupted(
    unbroken: tuple[Path, TrainConfig], dataset: Dataset, tmp_path: Path, epoch: int, done: int
) -> None:
    folder, settings = unbroken

    def interrupt(tick: Tick) -> None:
        if (tick.epoch, tick.done) == (epoch, done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(dataset, Path("data"), tmp_path / "run", settings).fit(report=interrupt)
    assert load_tensors(tmp_path / "run" / CHECKPOINT)[1]["epoch"] == epoch
    torch.manual_seed(12345)  # whatever else happened in between
    _, progress = train(tmp_path / "run", dataset, settings, resume=True)
    assert progress.epoch == 4
    assert_same(tensors_of(folder), tensors_of(tmp_path / "run"))
    assert_same(tensors_of(folder, BEST), tensors_of(tmp_path / "run", BEST))
    histories = [load_tensors(f / CHECKPOINT)[1]["history"] for f in (folder, tmp_path / "run")]
    assert [{**e, "seconds": 0} for e in histories[0]] == [{**e, "seconds": 0} for e in histories[1]]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(len(name))
        train(tmp_path / name, dataset, config(seed=seed, max_epochs=1))
    assert_same(tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b"))
    assert not torch.equal(
        tensors_of(tmp_path / "a")["model.item.weight"], tensors_of(tmp_path / "c")["model.item.weight"]
    )


def test_resume_refuses_another_configuration_other_data_and_a_damaged_run(
    unbroken: tuple[Path, TrainConfig], dataset: Dataset
) -> None:
    folder, settings = unbroken

    def resume(data: Dataset, how: TrainConfig) -> None:
        Trainer(data, Path("data"), folder, how, resume=True)

    with pytest.raises(RunError, match="another configuration"):
        resume(dataset, replace(settings, learning_rate=1e-4))
    other = tiny_dataset(users=60, seed=1)
    assert sequences(other).n_items == sequences(dataset).n_items
    with pytest.raises(RunError, match="trained on other data"):
        resume(other, settings)
    about = (folder / "run.json").read_text("utf-8")
    try:
        (folder / "run.json").write_text(about[: len(about) // 2], "utf-8")
        with pytest.raises(RunError, match="is not a training run"):
            resume(dataset, settings)
    finally:
        (folder / "run.json").write_text(about, "utf-8")


def test_a_folder_with_a_run_is_not_trained_over_and_one_without_is_not_resumed(
    unbroken: tuple[Path, TrainConfig], dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"already holds a run(?s:.*)add --resume"):
        Trainer(dataset, Path("data"), *unbroken)
    with pytest.raises(RunError, match="no finished epoch to resume"):
        Trainer(dataset, Path("data"), tmp_path / "new", config(), resume=True)


def test_a_log_that_leaves_nobody_to_validate_on_is_refused(tmp_path: Path) -> None:
    short = tiny_dataset(users=20, min_events=2, max_events=2)
    with pytest.raises(RunError, match=r"no user is held out(?s:.*)three events or more"):
        Trainer(short, Path("data"), tmp_path / "run", config())
    assert not (tmp_path / "run").exists()


def test_time_that_is_up_ends_the_epoch_and_leaves_a_run(dataset: Dataset, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    trainer = Trainer(dataset, Path("data"), tmp_path, config())
    progress = trainer.fit(max_minutes=1e-6, report=ticks.append)
    assert (len(ticks), progress.epoch) == (1, 1)
    assert ticks[0].total > 1
    Run.open(tmp_path).model()
    again = Trainer(dataset, Path("data"), tmp_path, config(), resume=True)
    assert again.fit(max_minutes=1e-6).epoch == 1, "the time of the first part counts"


def test_training_stops_when_validation_no_longer_improves(dataset: Dataset, tmp_path: Path) -> None:
    _, progress = train(tmp_path, dataset, config(learning_rate=0.0, weight_decay=0.0, patience=1))
    assert (progress.best_epoch, progress.epoch) == (0, 2)


def test_a_diverging_loss_ends_the_run_and_says_what_to_lower(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"loss is not finite\n.*epoch 1, batch(?s:.*)lower learning_rate"):
        train(tmp_path, dataset, config(learning_rate=1e30, warmup_steps=0))


def test_a_log_without_times_trains_without_them(tmp_path: Path) -> None:
    trainer, progress = train(tmp_path, tiny_dataset(users=30, has_time=False), config(max_epochs=2))
    assert progress.history[1]["loss"] < progress.history[0]["loss"]
    assert not [name for name, _ in trainer.model.named_parameters() if name.endswith("decay")]
    target = torch.arange(5)
    none = torch.full((5,), NO_SCENE)
    _, gap = trainer.conditions.sample(config(gap_known=1.0), target * 0, target, target * 0, none)
    assert gap.tolist() == [GAP_UNKNOWN] * 5, "the service never knows a gap there either"


# -- nothing held out is seen


def with_other_held_out_events(dataset: Dataset) -> Dataset:
    """The last two events of every user become other items, types and times (later ones, so that the order stays)."""
    events = dataset.events.with_row_index("row")
    tail = pl.col("row") >= pl.col("row").max().over("user_id") - 1
    n = len(dataset.items)
    number = (pl.col("item_id").str.strip_prefix("i").cast(pl.Int64) * 7 + pl.col("row") * 3 + 5) % n
    changed = events.with_columns(
        item_id=pl.when(tail).then("i" + number.cast(pl.String)).otherwise("item_id"),
        timestamp=pl.when(tail).then(pl.col("timestamp") + 86_400_000 * 900).otherwise("timestamp"),
        event_type=pl.when(tail).then(pl.lit("cart")).otherwise("event_type"),
    ).drop("row")
    assert (changed["item_id"] != dataset.events["item_id"]).sum() > len(dataset.users)
    return Dataset.of(
        dataset.name, changed, dataset.items, dataset.users, has_time=True, category_kind=dataset.category_kind
    )


def test_held_out_events_change_nothing_that_is_fitted(dataset: Dataset, tmp_path: Path) -> None:
    one, other = (
        Trainer(data, Path("data"), tmp_path / name, config(max_epochs=1))
        for name, data in (("a", dataset), ("b", with_other_held_out_events(dataset)))
    )
    assert (one.tokenizer.codes == other.tokenizer.codes).all()
    assert one.context == other.context
    assert torch.equal(one.log_q, other.log_q)
    for mine, theirs in zip(one.plan.batches(0, 99), other.plan.batches(0, 99), strict=True):
        for name in mine.__dataclass_fields__:
            a, b = getattr(mine, name), getattr(theirs, name)
            assert a is b is None or torch.equal(a, b), name
    one.fit()
    other.fit()
    assert_same(
        {n: t for n, t in tensors_of(tmp_path / "a").items() if n.startswith("model.")},
        {n: t for n, t in tensors_of(tmp_path / "b").items() if n.startswith("model.")},
    )
    neighbours = [fit_baselines(trainer.split) for trainer in (one, other)]
    assert (neighbours[0].popularity.share == neighbours[1].popularity.share).all()


def test_no_held_out_event_is_a_training_target(dataset: Dataset, tmp_path: Path) -> None:
    """Counted: every training event once, so none is left for the two held-out ones of a user."""
    trainer = Trainer(dataset, Path("data"), tmp_path, config())
    log = trainer.split.sequences
    targets = [t for batch in trainer.plan.batches(0, 99) for t in batch.target[batch.target >= 0].tolist()]
    kept = np.ones(log.n_events, bool)
    kept[trainer.split.test.history_end] = kept[trainer.split.valid.history_end] = False
    assert sorted(targets) == sorted(log.item[kept].tolist())
    assert len(targets) == log.n_events - 2 * log.n_users


def test_the_time_of_the_test_event_never_reaches_the_model(learnt: tuple[Trainer, Progress]) -> None:
    trainer = learnt[0]
    ranker = network_ranker(trainer.average, trainer.vocabulary)
    split = trainer.split
    time_ms = split.sequences.time_ms.copy()
    time_ms[split.test.history_end] += 500 * 86_400_000
    moved = replace(split.sequences, time_ms=time_ms)
    lists = [ranker(Histories(split.test.users, split.test.history_end, log)) for log in (split.sequences, moved)]
    assert (lists[0] == lists[1]).all()


# -- conditions


def test_the_context_vocabulary_knows_the_training_part_only() -> None:
    dataset = tiny_dataset(users=8)
    log = sequences(dataset)
    train_part = leave_one_out(log).train
    controls = item_controls(dataset, log.item_ids)
    seen = {code for item in train_part.item for code in controls[item]}
    vocabulary = fit_context(dataset, train_part, controls)
    assert set(vocabulary.values[ContextVocabulary.CONTROL]) == seen
    assert vocabulary.values["gender"].keys() == {"F", "M"}
    assert vocabulary.values["age_group"].keys() == {"18-24", "25-34"}, "a missing value is no value"
    gaps = [np.diff(train_part.time_ms[train_part.user(u)]) for u in range(train_part.n_users)]
    assert vocabulary.max_gap_ms == int(np.quantile(np.concatenate(gaps), 0.99)), "no gap spans two users"


def test_conditions_are_shown_as_often_as_configured_and_belong_to_their_position() -> None:
    dataset = tiny_dataset(users=30, category_kind="tags")
    log = sequences(dataset)
    controls = item_controls(dataset, log.item_ids)
    vocabulary = fit_context(dataset, log, controls)
    conditions = Conditions.of(dataset, log, vocabulary, controls)
    torch.manual_seed(0)
    n = 4000
    user, target = torch.randint(30, (n,)), torch.randint(30, (n,))
    gap = torch.full((n,), 100_000)
    step = int(quantised_gap_ms(np.array([100_000]))[0])

    def sample(shown: float) -> tuple[torch.Tensor, torch.Tensor]:
        settings = config(features_known=shown, control_known=shown, gap_known=shown)
        return conditions.sample(settings, user, target, gap, torch.full((n,), NO_SCENE))

    context, gaps = sample(0.0)
    assert not context.any()
    assert (gaps == GAP_UNKNOWN).all()
    context, gaps = sample(1.0)
    assert (gaps == step).all()
    assert torch.equal(context[:, 0], conditions.features[user, 0])
    names = {row: name for name, row in vocabulary.values[ContextVocabulary.CONTROL].items()}
    drawn = [(names[row], t) for row, t in zip(context[:, -1].tolist(), target.tolist(), strict=True)]
    assert all(name in controls[t] for name, t in drawn)
    assert {name for name, t in drawn if t == 0} == set(controls[0]), "any of an item's tags may be asked for"
    context, gaps = sample(0.25)
    assert float((gaps == step).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert float((context[:, -1] > 0).float().mean()) == pytest.approx(0.25, abs=0.04)


def test_a_gap_beyond_the_trained_ones_is_unknown() -> None:
    none = torch.zeros(1).long()
    conditions = Conditions(torch.zeros(1, 0).long(), none, torch.zeros(1, 1).long(), none, 2, 500_000)
    gap = torch.tensor([0, 500_000, 500_001, GAP_UNKNOWN])
    read = quantised_gap_ms(np.array([0, 500_000])).tolist()
    _, shown = conditions.sample(config(gap_known=1.0), gap * 0, gap * 0, gap, gap * 0)
    assert shown.tolist() == [*read, GAP_UNKNOWN, GAP_UNKNOWN]


# -- the run folder and the commands


def test_a_run_refuses_data_that_has_changed_since(
    unbroken: tuple[Path, TrainConfig], dataset: Dataset, tmp_path: Path
) -> None:
    run = Run.open(unbroken[0])
    dataset.save(tmp_path / "same")
    assert run.dataset(tmp_path / "same").fingerprint == dataset.fingerprint
    tiny_dataset(users=60, seed=5).save(tmp_path / "other")
    with pytest.raises(RunError, match="fingerprints differ"):
        run.dataset(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("run.json", b"{", "is not a training run", id="run.json-{-is no training run"),
        ("run.json", b'{"format": 99}', "run format 99, this version reads 2"),
        pytest.param(
            "run.json",
            b'{"format": 2, "network": {}}',
            "is not a training run",
            id='run.json-{"format": 2, "network": {}}-is no training run',
        ),
        pytest.param("run.json", b"[]", "is not a training run", id="run.json-[]-is no training run"),
        ("config.json", b'{"colour": 1}', "unknown configuration key 'colour'"),
        pytest.param(
            "tokenizer.npz",
            b"PK\x03\x04broken",
            "is not a training run",
            id="tokenizer.npz-PK\x03\x04broken-is no training run",
        ),
        ("best.safetensors", b"broken", "best.safetensors cannot be read"),
        ("best.safetensors", None, "best.safetensors cannot be read"),
    ],
)
def test_a_damaged_run_is_refused_with_its_name(
    unbroken: tuple[Path, TrainConfig], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    for file in unbroken[0].iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        Run.open(tmp_path).model()
    assert str(tmp_path) in str(caught.value)


def test_train_and_evaluate_as_commands(dataset: Dataset, tmp_path: Path) -> None:
    data, out, figures = tmp_path / "data", tmp_path / "run", tmp_path / "figures.json"
    dataset.save(data)
    runner = CliRunner()
    options = ["--data", str(data), "--out", str(out), "--seed", "1"]
    sets = [x for k, v in QUICK.items() if k != "network" for x in ("--set", f"{k}={v}")]
    done = runner.invoke(train_app, [*options, *sets, "--set", "max_epochs=1", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["systems"].keys() == {"gpt4rec", "item_cf", "popular"}
    assert json.loads((out / "metrics.json").read_text("utf-8"))["systems"] == report["systems"]
    assert runner.invoke(train_app, [*options, *sets]).exit_code == 1, "the folder holds a run"
    assert runner.invoke(train_app, [*options, "--set", "colour=red"]).exit_code == 2
    resumed = runner.invoke(train_app, ["--data", str(data), "--out", str(out), "--resume", "--max-minutes", "0.01"])
    assert resumed.exit_code == 0, resumed.output
    done = runner.invoke(
        evaluate_app, ["--run", str(out), "--data", str(data), "--split", "valid", "--json", str(figures)]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(figures.read_text("utf-8"))["split"] == "valid"
    assert runner.invoke(evaluate_app, ["--data", str(data)]).exit_code == 2
    missing = runner.invoke(evaluate_app, ["--run", str(tmp_path / "none"), "--data", str(data)])
    assert missing.exit_code == 1
    assert "is not a training run" in " ".join(missing.stderr.split())
