"""Ranking through the served graphs, over seeds, by the published protocol.

    python -m loadtests.quality.ranking --data DIR --work DIR [--split strict] [--ties shuffled] [--seeds 0,1,2]
        [--minutes M] [--set key=value] [--before DIR]

`--split strict` (the default) holds the last event but one of everybody out of the training, as the published tables
do; `sampled` holds out that of a sample of users. For each seed: a training with the defaults, its export, and lists of
every test user as served, by the path alone (generation: no dense score, no dense candidates), and, to
show the loss of the decoder, by the dense score over the whole catalogue in torch. Beside them stand the scorer of all
signals without the network, each signal alone (`loadtests.quality.signal_rows`) and untrained heuristics
(`loadtests.quality.heuristics`). Changes by --set are part of the name of the figures. Runs, artefacts and
the rank of every target are kept in `--work` and reused; an interrupted training is resumed.

`--before` names a folder with the ranks that an older commit wrote (`python -m loadtests.quality.ranks`): every part in
`--work` that it has too is then compared with it, user by user (`loadtests.quality.before`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from rich.console import Console

from export.from_run import export_run
from loadtests.common import results
from loadtests.quality import before as paired
from loadtests.quality import criteria, signal_rows
from loadtests.quality.heuristics import heuristics
from loadtests.quality.means import spread
from loadtests.quality.network_alone import rank_by_path
from loadtests.quality.protocols import CHANGES, SPLITS, STRICT, part_name
from loadtests.quality.ranks import DECODING, FILE, SERVED, Ranks
from model.cli.training_progress import fit
from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.baselines import fit_baselines
from model.evaluation.bootstrap import paired_bootstrap
from model.evaluation.evaluate import Ranker, evaluate, item_cf_ranker
from model.evaluation.rankers import engine_ranker, network_ranker
from model.evaluation.signal_rankers import signal_rankers
from model.training.config import TrainConfig
from model.training.run_folder import CHECKPOINT, Run, split_of
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.artifact.features import Vocabulary
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.engine.baseline_engine import FUSED
from service.engine.engine import Engine

NAME = "quality_ranking"
COMMAND = "python -m loadtests.quality.ranking --data DIR --work DIR"
MEASURES = ("recall@10", "ndcg@10", "coverage@10")
ITEM_CF = "item_cf"

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def ranking(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of runs and artefacts.")],
    split: Annotated[
        str, typer.Option(help="Whose last event but one is held out: strict (everybody's) or sampled.")
    ] = STRICT,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Longest training of a seed; by default all epochs.")
    ] = None,
    ties: Annotated[
        str, typer.Option(help="Order of events at the same time: published (as in the file) or shuffled.")
    ] = "published",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A hyper-parameter, key=value.")] = None,
    before: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of ranks that an older commit wrote.")
    ] = None,
) -> None:
    """Trains, exports and evaluates, and records the mean over the seeds."""
    changed = sorted(assignments or [])
    _check(split, ties, changed)
    dataset = Dataset.load(data)
    if ties == "shuffled":
        dataset = with_ties_shuffled(dataset)
    trial = Trial.of(dataset, split, ties, minutes, changed)
    (work / trial.folder).mkdir(parents=True, exist_ok=True)
    write_aside(work / trial.folder / paired.PART, trial.label.encode())
    keep_baselines(trial.label, baselines(dataset, data, trial, work / trial.folder))
    for seed in (int(part) for part in seeds.split(",")):
        settings = TrainConfig.build(None, trial.settings, seed=seed)
        folder = work / trial.folder / str(seed)
        kept = folder / "figures.json"
        if not kept.exists():
            write_aside(kept, json.dumps(measured(dataset, data, folder, settings, minutes, split)).encode())
        keep(trial.label, str(seed), json.loads(kept.read_text("utf-8")))
    ranks = [Ranks.load(work / trial.folder / seed / FILE) for seed in seeds.split(",")]
    summarise(trial.label, trial.command, ranks)
    if before is not None:
        paired.record(paired.compare(work, before), console.print)


def _check(split: str, ties: str, changed: Sequence[str]) -> None:
    """Refuses options that name nothing, or that have an option of their own."""
    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r}: choose {' or '.join(SPLITS)}", param_hint="--split")
    if ties not in ("published", "shuffled"):
        raise typer.BadParameter(f"{ties!r}: choose published or shuffled", param_hint="--ties")
    keys = {assignment.partition("=")[0].strip() for assignment in changed}
    if "seed" in keys:
        raise typer.BadParameter("name the seeds with --seeds", param_hint="--set")
    if keys & {"split", "validation_users"}:
        raise typer.BadParameter("name the split with --split", param_hint="--set")
    if "repeats" in keys:
        raise typer.BadParameter("the protocol leaves the history out of lists", param_hint="--set")


@dataclass(frozen=True)
class Trial:
    """One setting of the training.

    Attributes:
        label: Its name in the tables.
        folder: Its folder below `--work`.
        command: The command that repeats it.
        settings: What it changes of the defaults, key=value each.
    """

    label: str
    folder: str
    command: str
    settings: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, split: str, ties: str, minutes: float | None, changed: Sequence[str]) -> Trial:
        """Returns the trial of these options."""
        options = COMMAND.split()
        options += [] if split == STRICT else ["--split", split]
        options += [] if ties == "published" else ["--ties", ties]
        options += [] if minutes is None else ["--minutes", f"{minutes:g}"]
        for assignment in changed:
            options += ["--set", assignment]
        label = part_name(dataset.name, split, ties, minutes, changed)
        of_options = part_name("", split, ties, minutes, changed).split(", ")[1:]
        folder = "-".join(["ranking", split, dataset.name, dataset.fingerprint[:8], *of_options]).replace(" ", "-")
        return cls(label, folder, shlex.join(options), (*CHANGES[split], *changed))


def with_ties_shuffled(dataset: Dataset) -> Dataset:
    """Returns the data set with events of one user at one time in another, fixed order.

    Raises:
        BadParameter: The data set has no times, so nothing tells a tie.
    """
    if not dataset.has_time:
        raise typer.BadParameter(f"{dataset.name} has no times, so no ties", param_hint="--ties")
    chance = pl.Series("chance", np.random.default_rng(0).permutation(dataset.events.height))
    users = dataset.events.select("user_id").unique(maintain_order=True).with_row_index("place")
    events = dataset.events.with_columns(chance).join(users, on="user_id").sort("place", "timestamp", "chance")
    parts = events.drop("place", "chance"), dataset.items, dataset.users
    return Dataset.of(dataset.name, *parts, has_time=dataset.has_time, category_kind=dataset.category_kind)


def baselines(dataset: Dataset, data: Path, trial: Trial, folder: Path) -> dict[str, Any]:
    """Returns the figures of what is not trained, by name; kept in the folder of the trial."""
    kept = folder / "baselines.json"
    if not kept.exists():
        split = split_of(TrainConfig.build(None, list(trial.settings)), sequences(dataset))
        found = {}
        for name, ranker in {**heuristics(dataset, data, split), **signal_rows.alone(dataset, data, split)}.items():
            with console.status(name):
                figures = evaluate({name: ranker}, split, "test", samples=1).systems[name].figures
            found[name] = {measure: figures[measure] for measure in MEASURES}
            console.print(f"{name}: {found[name]}", highlight=False)
        write_aside(kept, json.dumps(found).encode())
    loaded: dict[str, Any] = json.loads(kept.read_text("utf-8"))
    return loaded


def measured(
    dataset: Dataset, data: Path, folder: Path, settings: TrainConfig, minutes: float | None, split: str
) -> dict[str, Any]:
    """Trains and exports once; returns the figures of the artefact, and writes the ranks beside them."""
    trainer = Trainer(dataset, data, folder, settings, resume=(folder / CHECKPOINT).exists())
    fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds))
    where = folder / "data"
    dataset.save(where)  # the export reads what the run was trained on, ties and all
    with console.status("exporting") as status:
        artifact, _ = export_run(folder, folder / "artifacts", "float32", where, say=status.update)
        engine = Engine.open(artifact, device="cpu", threads=1)
        status.update("evaluating")
        figures, ranks = listed(engine, Run.open(folder), trainer.split, dataset.has_time)
    users = tuple(trainer.split.sequences.user_ids[user] for user in trainer.split.test.users)
    ways = {SERVED: "blend", ITEM_CF: ITEM_CF, FUSED: FUSED}
    shown = {name: ranks[way].astype(np.int8) for name, way in ways.items()}
    Ranks(dataset.name, dataset.fingerprint, split, settings.seed, users, shown).save(folder / FILE)
    p = trainer.progress
    return {
        "figures": figures,
        "ranker": engine.artifact.manifest["ranker"],
        "epochs": p.epoch,
        "best_epoch": p.best_epoch + 1,
        "seconds": p.seconds,
        "history": p.history,
        "network": trainer.network.to_json(),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }


def listed(
    engine: Engine, run: Run, split: Split, has_time: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, IntArray]]:
    """Returns figures on the test part, and ranks [users], by each way of ranking and by tuned item-CF.

    The engine ranks by the path alone afterwards.
    """
    parts, tuned = engine.artifact, fit_baselines(split)  # the artefact's item-CF also knows cold items
    vocabulary = Vocabulary.of(split.train.item_ids, run.context, has_time)
    item_cf = item_cf_ranker(tuned.item_cf, tuned.popularity)
    ways: dict[str, Ranker] = {
        "blend": engine_ranker(engine, DECODING),
        "dense": network_ranker(run.model(), vocabulary),
        ITEM_CF: item_cf,
        FUSED: item_cf,
        **signal_rankers(parts, each=False),  # without learned weights they are item-CF
        "path": engine_ranker(engine, DECODING, signals=False),
    }
    found, ranks = {}, {}
    for name, ranker in ways.items():
        if name == "path":
            rank_by_path(engine)
        system = evaluate({name: ranker}, split, "test", samples=1).systems[name]
        found[name] = {measure: system.figures[measure] for measure in MEASURES}
        ranks[name] = metrics.target_ranks(system.lists, split.test.target)
        console.print(f"{name}: {found[name]}", highlight=False)
    return found, ranks


def keep(label: str, seed: str, found: Mapping[str, Any]) -> None:
    """Records the figures of one seed."""
    part = _part(label)
    _save(label, {**part, "seeds": {**part.get("seeds", {}), seed: found}})


def keep_baselines(label: str, found: Mapping[str, Any]) -> None:
    """Records the figures of what is not trained."""
    _save(label, {**_part(label), "baselines": found})


def summarise(label: str, command: str = COMMAND, ranks: Sequence[Ranks] = ()) -> None:
    """Records means with 95 % intervals, and the rows of the criteria.

    Args:
        label: Name of the part.
        command: The command that repeats it.
        ranks: Ranks of the seeds, for the paired difference to item-CF.
    """
    part = _part(label)
    runs: Sequence[Mapping[str, Any]] = list(part["seeds"].values())
    means = {
        way: {measure: spread([run["figures"][way][measure] for run in runs]) for measure in MEASURES}
        for way in runs[0]["figures"]
    }
    _save(label, {**part, "means": means, "command": command})
    for measure in criteria.MEASURES:
        _record(f"{label}: {measure}", means["blend"][measure]["mean"], command)
        ahead = _of_means(means["blend"], means[ITEM_CF], measure)
        _record(f"{label}: {measure} {criteria.ON_ITEM_CF}", ahead, command)
        _record(f"{label}: {measure}, path alone", means["path"][measure]["mean"], command)
        _record(f"{label}: {measure}, all signals, no network", means[FUSED][measure]["mean"], command)
        for name, figures in part.get("baselines", {}).items():
            _record(f"{label}: {measure}, {name}", figures[measure], command)
    _record(f"{label}: recall@10, dense score over everything", means["dense"]["recall@10"]["mean"], command)
    for measure, value in paired.MEASURES.items() if ranks else ():
        ours, theirs = (np.mean([value(one.of(way), 10) for one in ranks], axis=0) for way in (SERVED, ITEM_CF))
        _record(f"{label}: {measure} {criteria.ON_ITEM_CF}, lower end", paired_bootstrap(ours, theirs).low, command)


def _of_means(ours: Mapping[str, Any], theirs: Mapping[str, Any], measure: str) -> float:
    return float(ours[measure]["mean"] - theirs[measure]["mean"])


def _record(criterion: str, value: float | None, command: str) -> None:
    assert value is not None  # noqa: S101 - a mean of at least one seed
    limit = criteria.limit(criterion)
    results.record(results.QUALITY, results.row(criterion, value, "", command, **limit))


def _part(label: str) -> dict[str, Any]:
    found: dict[str, Any] = (results.load(NAME) or {}).get("parts", {}).get(label, {})
    return found


def _save(label: str, part: Mapping[str, Any]) -> None:
    results.save_part(NAME, label, part, command=COMMAND)


if __name__ == "__main__":
    run_command(app)
