"""Ranking through the served graphs, over seeds, by the published protocol.

    python -m loadtests.quality.ranking --data DIR --work DIR [--seeds 0,1,2] [--minutes M] [--set key=value]
    python -m loadtests.quality.ranking --data DIR --work DIR --ties shuffled

For each seed: a training with the defaults, its export, and lists of every test user by the blend that validation
chose, by the path alone (generation without the dense score: no dense candidates, blend 0), and, to show the loss of
the decoder, by the dense score over the whole catalogue in torch. Changes by --set are part of the name of the figures.
Runs, artefacts and lists are kept in `--work` and reused; an interrupted training is resumed.
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
from loadtests.quality.means import spread
from model.cli.training_progress import fit
from model.data.dataset import Dataset
from model.data.split import Split
from model.evaluation.evaluate import Ranker, evaluate, item_cf_ranker
from model.evaluation.rankers import engine_ranker, network_ranker
from model.training.config import TrainConfig
from model.training.run_folder import CHECKPOINT, Run
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.features import Vocabulary
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.engine.decoding import Decoding
from service.engine.engine import Engine

NAME = "quality_ranking"
COMMAND = "python -m loadtests.quality.ranking --data DIR --work DIR"
MEASURES = ("recall@10", "ndcg@10", "coverage@10")
PATH_LIMIT = 0.065  # TIGER's recall@10 on Beauty (Rajput et al., 2023)
# Data set → least recall@10 and NDCG@10 of the blend.
LIMITS: Mapping[str, tuple[float, float]] = {"Beauty": (0.0930, 0.0535), "ml-1m, 30 minutes": (0.315, 0.182)}

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def ranking(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of runs and artefacts.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Longest training of a seed; by default all epochs.")
    ] = None,
    ties: Annotated[
        str, typer.Option(help="Order of events at the same time: published (as in the file) or shuffled.")
    ] = "published",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A hyper-parameter, key=value.")] = None,
) -> None:
    """Trains, exports and evaluates, and records the mean over the seeds."""
    if ties not in ("published", "shuffled"):
        raise typer.BadParameter(f"{ties!r}: choose published or shuffled", param_hint="--ties")
    dataset = Dataset.load(data)
    if ties == "shuffled":
        dataset = with_ties_shuffled(dataset)
    changed = sorted(assignments or [])
    if any(assignment.partition("=")[0].strip() == "seed" for assignment in changed):
        raise typer.BadParameter("name the seeds with --seeds", param_hint="--set")
    trial = Trial.of(dataset, ties, minutes, changed)
    for seed in (int(part) for part in seeds.split(",")):
        settings = TrainConfig.build(None, changed, seed=seed)
        folder = work / trial.folder / str(seed)
        kept = folder / "figures.json"
        if not kept.exists():
            write_aside(kept, json.dumps(measured(dataset, data, folder, settings, minutes)).encode())
        keep(trial.label, str(seed), json.loads(kept.read_text("utf-8")))
    summarise(trial.label, trial.command)


@dataclass(frozen=True)
class Trial:
    """One setting of the training: its name in the tables, its folder, and the command that repeats it."""

    label: str
    folder: str
    command: str

    @classmethod
    def of(cls, dataset: Dataset, ties: str, minutes: float | None, changed: Sequence[str]) -> Trial:
        """Returns the trial of these options."""
        shown, options = [dataset.name], COMMAND.split()
        if ties != "published":
            shown.append(f"ties {ties}")
            options += ["--ties", ties]
        if minutes is not None:
            shown.append(f"{minutes:g} minutes")
            options += ["--minutes", f"{minutes:g}"]
        for assignment in changed:
            shown.append(assignment)
            options += ["--set", assignment]
        folder = "-".join(["ranking", dataset.name, dataset.fingerprint[:8], *shown[1:]]).replace(" ", "-")
        return cls(", ".join(shown), folder, shlex.join(options))


def with_ties_shuffled(dataset: Dataset) -> Dataset:
    """Returns the data set with events of one user at one time in another, fixed order."""
    chance = pl.Series("chance", np.random.default_rng(0).permutation(dataset.events.height))
    users = dataset.events.select("user_id").unique(maintain_order=True).with_row_index("place")
    events = dataset.events.with_columns(chance).join(users, on="user_id").sort("place", "timestamp", "chance")
    parts = events.drop("place", "chance"), dataset.items, dataset.users
    return Dataset.of(dataset.name, *parts, has_time=dataset.has_time, category_kind=dataset.category_kind)


def measured(
    dataset: Dataset, data: Path, folder: Path, settings: TrainConfig, minutes: float | None
) -> dict[str, Any]:
    """Trains and exports once; returns the figures of the artefact."""
    trainer = Trainer(dataset, data, folder, settings, resume=(folder / CHECKPOINT).exists())
    fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds))
    where = folder / "data"
    dataset.save(where)  # the export reads what the run was trained on, ties and all
    with console.status("exporting") as status:
        artifact, report = export_run(folder, folder / "artifacts", "float32", where, say=status.update)
        engine = Engine.open(artifact, device="cpu", threads=1)
        status.update("evaluating")
        figures = listed(engine, Run.open(folder), trainer.split, report["blend"], dataset.has_time)
    p = trainer.progress
    return {
        "figures": figures,
        "blend": report["blend"],
        "epochs": p.epoch,
        "best_epoch": p.best_epoch + 1,
        "seconds": p.seconds,
        "history": p.history,
        "network": trainer.network.to_json(),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }


def listed(engine: Engine, run: Run, split: Split, blend: float, has_time: bool) -> dict[str, dict[str, Any]]:
    """Returns figures on the test part by each way of ranking, with item-CF of the same artefact."""
    beam = engine_ranker(engine, Decoding("beam", beam_width=5))
    parts = engine.artifact
    vocabulary = Vocabulary.of(split.train.item_ids, run.context, has_time)
    ways: dict[str, tuple[Ranker, float, bool]] = {
        "blend": (beam, blend, True),
        "path": (beam, 0.0, False),
        "dense": (network_ranker(run.model(), vocabulary), blend, True),
        "item_cf": (item_cf_ranker(parts.item_cf, parts.popularity), blend, True),
    }
    found = {}
    for name, (ranker, weight, join) in ways.items():
        engine.set_blend(weight)
        engine.set_dense_candidates(join)
        figures = evaluate({name: ranker}, split, "test", samples=1).systems[name].figures
        found[name] = {measure: figures[measure] for measure in MEASURES}
        console.print(f"{name}: {found[name]}", highlight=False)
    return found


def keep(label: str, seed: str, found: Mapping[str, Any]) -> None:
    """Records the figures of one seed."""
    parts = (results.load(NAME) or {}).get("parts", {})
    seeds = {**parts.get(label, {}).get("seeds", {}), seed: found}
    _save({**parts, label: {**parts.get(label, {}), "seeds": seeds}})


def summarise(label: str, command: str = COMMAND) -> None:
    """Records means with 95 % intervals, and the rows of the criteria."""
    parts = (results.load(NAME) or {})["parts"]
    runs: Sequence[Mapping[str, Any]] = list(parts[label]["seeds"].values())
    means = {
        way: {measure: spread([run["figures"][way][measure] for run in runs]) for measure in MEASURES}
        for way in ("blend", "path", "dense", "item_cf")
    }
    _save({**parts, label: {**parts[label], "means": means, "command": command}})
    limits: tuple[float | None, float | None] = LIMITS.get(label, (None, None))
    for measure, limit in zip(("recall@10", "ndcg@10"), limits, strict=True):
        _record(f"{label}: {measure}", means["blend"][measure], command, limit)
    _record(
        f"{label}: recall@10, path alone",
        means["path"]["recall@10"],
        command,
        PATH_LIMIT if label == "Beauty" else None,
    )
    _record(f"{label}: ndcg@10, path alone", means["path"]["ndcg@10"], command)
    _record(f"{label}: recall@10, dense score over everything", means["dense"]["recall@10"], command)


def _record(criterion: str, mean: Mapping[str, float | None], command: str, limit: float | None = None) -> None:
    value = mean["mean"]
    assert value is not None  # noqa: S101 - a mean of at least one seed
    results.record(results.QUALITY, results.row(criterion, value, "", command, at_least=limit))


def _save(parts: Mapping[str, Any]) -> None:
    results.save(NAME, {"parts": parts}, command=COMMAND)


if __name__ == "__main__":
    run_command(app)
