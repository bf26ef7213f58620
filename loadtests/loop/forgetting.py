"""The forgetting table: what a model still knows of old questions after it has learned new events, and what that takes.

    python -m loadtests.loop.forgetting --data DIR [--new 0.05] [--seeds 0,1,2] [--set max_epochs=20] [--record]

The newest `--new` of the events come after a first training. Methods: no more than first vectors for new items (base),
a whole training on everything (scratch), and increments: naive, with elastic weight consolidation, with replay, with
both, and with both and the encoder kept. All are asked the same two sets of questions, which none has trained on:

- new: the first event of each user in the newest quarter of the new events,
- old: the last event before the new ones of users who have none after it; these events are taken out of all data.

Figures are NDCG@10 of the dense score over the whole catalogue; time is preparation, epochs and validations, without
the closing evaluation, for all methods alike. Choosing the strength is timed apart: increments of increments keep it.

Take data whose users come back, such as Complete Journey: where most users come once, as in MovieLens, a split by time
leaves few questions, and the best epochs of the trainings are chosen by chance.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.loop import criteria
from loadtests.loop.forgetting_data import Asked, Parts, parts_of, questions_of
from model.data.dataset import Dataset, sequences
from model.evaluation.bootstrap import paired_bootstrap
from model.training.config import TrainConfig
from model.training.increment.settings import IncrementSettings, increment_config
from model.training.increment.start import Start, start_from
from model.training.increment.strength import decided
from model.training.increment.trainer import IncrementTrainer, memory_of
from model.training.run_folder import Run
from model.training.trainer import Trainer
from model.training.validation import validation_gains
from service.artifact.array_types import Float64Array
from service.artifact.features import Vocabulary
from service.cli.outermost import run_command

NAME = "loop_forgetting"
console = Console(stderr=True, highlight=False)
# What a first and a whole training hold out of their newest events, by default: less than the usual tenth.
HELD_OUT = ("valid_share=0.03", "test_share=0.02")
INCREMENTS: Mapping[str, IncrementSettings] = {
    "naive": IncrementSettings(strength=0.0, replay=0.0),
    "ewc": IncrementSettings(replay=0.0),
    "replay": IncrementSettings(strength=0.0),
    "both": IncrementSettings(),
    "both, encoder kept": IncrementSettings(keep_encoder=True),
}
# The method that the criteria are about, and what it is compared with.
JUDGED, WHOLE = "both", "scratch"


@dataclass(frozen=True)
class Outcome:
    """What one method came to.

    Attributes:
        old: [questions] NDCG@10 of the old questions.
        new: [questions] NDCG@10 of the new ones.
        seconds: Preparation, epochs and validations.
        choice_seconds: Choosing the strength.
        strength: The strength chosen; None where there is none.
    """

    old: Float64Array
    new: Float64Array
    seconds: float
    choice_seconds: float = 0.0
    strength: float | None = None


def judged(run: Run | IncrementTrainer, asked: Asked) -> tuple[Float64Array, Float64Array]:
    """Returns the gains [questions] of a network on old and new questions."""
    if isinstance(run, Run):
        model, vocabulary = run.model(), Vocabulary.of(asked.log.item_ids, run.context, has_time=True)
    else:
        model, vocabulary = run.average, run.vocabulary
    old, new = (
        validation_gains(model, split, vocabulary, len(split.valid), exclude_history=not run.config.repeats)
        for split in asked.splits()
    )
    return old, new


def base(parts: Parts, folder: Path, config: TrainConfig) -> tuple[Run, float]:
    """Trains on the old events."""
    began = time.perf_counter()
    trainer = Trainer(parts.old, folder / "old", folder / "base", config)
    trainer.fit()
    seconds = time.perf_counter() - began
    memory_of(trainer, parts.old, folder / "old").save(folder / "base")
    return Run.open(folder / "base"), seconds


def scratch(start: Start, folder: Path, config: TrainConfig, shares: TrainConfig) -> tuple[Run, float]:
    """Trains anew on everything, with the held-out part of the increments."""
    began = time.perf_counter()
    config = replace(config, valid_share=shares.valid_share, test_share=shares.test_share)
    trainer = Trainer(start.data.dataset, start.data.path, folder / "scratch", config)
    trainer.fit()
    return Run.open(folder / "scratch"), time.perf_counter() - began


def increment(
    start: Start, folder: Path, config: TrainConfig, settings: IncrementSettings
) -> tuple[Run, float, float, float]:
    """Goes on from the base; returns run, seconds, seconds of the choice, and the strength."""
    began = time.perf_counter()
    settings, chosen = decided(start, config, settings)
    choice_s = time.perf_counter() - began
    began = time.perf_counter()
    IncrementTrainer(start, folder, config, settings, chosen=chosen).fit()
    return Run.open(folder), time.perf_counter() - began, choice_s, float(settings.strength or 0.0)


def compare(dataset: Dataset, new: float, config: TrainConfig, folder: Path) -> dict[str, Outcome]:
    """Runs all methods with one seed; returns the outcome of each."""
    parts = parts_of(dataset, new, config.seed)
    parts.old.save(folder / "old")
    parts.all.save(folder / "all")
    console.print(f"seed {config.seed}: base")
    run, seconds = base(parts, folder, config)
    start = start_from(folder / "base", folder / "all", None, folder / "joined")
    start.data.save()
    log = sequences(start.data.dataset)
    settled = increment_config(start.run, log, start.memory.new_from_ms, None, [f"seed={config.seed}"])
    asked = questions_of(parts, log, settled)
    grown = IncrementTrainer(start, folder / "grown", settled, INCREMENTS["naive"])
    outcomes = {"base": Outcome(*judged(grown, asked), seconds)}
    console.print(WHOLE)
    run, seconds = scratch(start, folder, config, settled)
    outcomes[WHOLE] = Outcome(*judged(run, asked), seconds)
    for name, settings in INCREMENTS.items():
        console.print(name)
        run, seconds, choice_s, strength = increment(start, folder / name, settled, settings)
        outcomes[name] = Outcome(*judged(run, asked), seconds, choice_s, strength)
    return outcomes


def summary(outcomes: list[dict[str, Outcome]]) -> list[dict[str, Any]]:
    """Returns a row of the table for each method: means over the seeds, shares of the whole training."""
    rows = []
    for name in outcomes[0]:
        ones, wholes = [one[name] for one in outcomes], [one[WHOLE] for one in outcomes]
        row: dict[str, Any] = {"method": name}
        for part in ("old", "new"):
            ours, theirs = (np.concatenate([getattr(o, part) for o in group]) for group in (ones, wholes))
            interval = paired_bootstrap(ours, theirs, samples=2000)
            row |= {
                f"{part}_questions": len(ones[0].old if part == "old" else ones[0].new),
                f"{part}_ndcg@10": round(float(ours.mean()), 4),
                f"{part}_of_scratch": _share(float(ours.mean()), float(theirs.mean())),
                f"{part}_difference": [round(v, 4) for v in (interval.difference, interval.low, interval.high)],
            }
        seconds = [float(np.mean([o.seconds for o in group])) for group in (ones, wholes)]
        row |= {
            "seconds": round(seconds[0], 2),
            "time_of_scratch": _share(*seconds),
            "choice_seconds": round(float(np.mean([o.choice_seconds for o in ones])), 2),
            "strengths": [o.strength for o in ones],
        }
        rows.append(row)
    return rows


def _share(ours: float, theirs: float) -> float:
    return round(ours / theirs, 4) if theirs else 0.0


def main(
    data: Annotated[Path, typer.Option(exists=True, help="Data set with times.")],
    new: Annotated[float, typer.Option(min=0.001, max=0.5, help="Share of the events that are new.")] = 0.05,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings of the trainings.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the runs; by default a temporary one.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write table and rows into loadtests/results.")] = False,
) -> None:
    """Train by all methods and print the forgetting table."""
    dataset = Dataset.load(data)
    outcomes = []
    for seed in map(int, seeds.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="gpt4rec-forgetting-")) if work is None else work / f"seed-{seed}"
        config = TrainConfig.build(None, ["split=time", *HELD_OUT, *(assignments or [])], seed=seed)
        try:
            outcomes.append(compare(dataset, new, config, folder))
        finally:
            if work is None:
                shutil.rmtree(folder, ignore_errors=True)
    rows = summary(outcomes)
    typer.echo(f"{rows[0]['old_questions']:,} old and {rows[0]['new_questions']:,} new questions")
    for row in rows:
        typer.echo(_line(row))
    if record:
        _record(dataset.name, rows, data, new, seeds)


def _line(row: Mapping[str, Any]) -> str:
    """Returns a row of the table as a line."""
    parts = [f"{part} {row[f'{part}_ndcg@10']:.4f} ({row[f'{part}_of_scratch']:.1%})" for part in ("old", "new")]
    parts.append(f"{row['seconds']:8.1f} s ({row['time_of_scratch']:.1%})")
    if row["choice_seconds"]:
        parts.append(f"strength {row['strengths']} chosen in {row['choice_seconds']:.1f} s")
    return f"{row['method']:20} {'  '.join(parts)}"


def _record(name: str, rows: list[dict[str, Any]], data: Path, new: float, seeds: str) -> None:
    command = f"python -m loadtests.loop.forgetting --data {data.name} --new {new:g} --seeds {seeds} --record"
    tables: dict[str, Any] = (results.load(NAME) or {}).get("tables", {})
    results.save(NAME, {"tables": {**tables, name: {"command": command, "rows": rows}}}, command=command)
    judged_row = next(row for row in rows if row["method"] == JUDGED)
    for part, key in (("time", "time_of_scratch"), ("new", "new_of_scratch"), ("old", "old_of_scratch")):
        criterion = criteria.forgetting(part)
        results.record(results.LOOP, criteria.row(criterion, 100 * judged_row[key], "%", command))


if __name__ == "__main__":
    run_command(main)
