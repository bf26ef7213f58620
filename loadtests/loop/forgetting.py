"""The forgetting table: what a model still knows of old questions after it has learned new events, and what that takes.

    python -m loadtests.loop.forgetting --data DIR [--new 0.05] [--seeds 0,1,2] [--set max_epochs=20] [--record]

The newest `--new` of the events come after a first training. Methods: no more than first vectors for new items (base),
a whole training on everything (scratch), and increments: naive, with elastic weight consolidation, with replay, with
both, and with both and the encoder kept. All are asked the same two sets of questions, which none has trained on:

- new: the first event of each user in the newest quarter of the new events,
- old: the last event before the new ones of users who have none after it; these events are taken out of all data.

Figures are NDCG@10 of the dense score over the whole catalogue. Two times are taken, for all methods alike: that of
preparation, epochs and validations, and that of all that `gpt4rec train` does once it has started. It reads run and
data, estimates the Fisher information and evaluates in the end; a whole training also tunes item-CF. Choosing the
strength is timed apart: increments of increments keep it.

Take data whose users come back, such as Complete Journey: where most users come once, as in MovieLens, a split by time
leaves few questions, and the best epochs of the trainings are chosen by chance.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.loop import criteria
from loadtests.loop.forgetting_data import Asked, parts_of, questions_of
from model.cli.closing_evaluation import prepare
from model.data.dataset import Dataset, sequences
from model.evaluation.bootstrap import paired_bootstrap
from model.training.config import TrainConfig
from model.training.increment.settings import IncrementSettings, increment_config
from model.training.increment.start import Start, start_from
from model.training.increment.strength import decided
from model.training.increment.trainer import IncrementTrainer, memory_of
from model.training.run_folder import Run
from model.training.time_limit import TimeLimit
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
        command_seconds: All that the command does, but for choosing the strength.
        choice_seconds: Choosing the strength.
        strength: The strength chosen; None where there is none.
    """

    old: Float64Array
    new: Float64Array
    seconds: float
    command_seconds: float
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


class Stopwatch:
    """Takes the times of a training that does what the command does.

    Attributes:
        seconds: Preparation, epochs and validations.
        command_seconds: Everything, once it has been stopped.
    """

    def __init__(self) -> None:
        self.seconds = self.command_seconds = 0.0
        self._began = time.perf_counter()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Counts what the body takes."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def stop(self) -> None:
        """Notes what everything has taken since the start."""
        self.command_seconds = time.perf_counter() - self._began


def ended(trainer: Trainer, dataset: Dataset, place: Path, watch: Stopwatch) -> Run:
    """Trains and evaluates as `gpt4rec train` does."""
    quiet = Console(stderr=True, quiet=True)
    closing = prepare(trainer, dataset, TimeLimit(None), quiet, tune=not isinstance(trainer, IncrementTrainer))
    with watch.training():
        trainer.fit()
    memory_of(trainer, dataset, place).save(trainer.folder)
    closing.of(trainer, quiet)
    watch.stop()
    return Run.open(trainer.folder)


def whole(place: Path, folder: Path, config: TrainConfig) -> tuple[Run, Stopwatch]:
    """Trains anew on a data set."""
    watch = Stopwatch()
    dataset = Dataset.load(place)
    with watch.training():
        trainer = Trainer(dataset, place, folder, config)
    return ended(trainer, dataset, place, watch), watch


def increment(
    start: Start, base: Path, place: Path, folder: Path, config: TrainConfig, settings: IncrementSettings
) -> tuple[Run, Stopwatch, float, float]:
    """Goes on from the base; returns run, times, seconds of the choice, and the strength."""
    began = time.perf_counter()
    settings, chosen = decided(start, config, settings)
    choice_s, watch = time.perf_counter() - began, Stopwatch()
    start = start_from(base, place, None, folder)
    with watch.training():
        trainer = IncrementTrainer(start, folder, config, settings, chosen=chosen)
    run = ended(trainer, start.data.dataset, start.data.path, watch)
    return run, watch, choice_s, float(settings.strength or 0.0)


def compare(dataset: Dataset, new: float, config: TrainConfig, folder: Path) -> dict[str, Outcome]:
    """Runs all methods with one seed; returns the outcome of each."""
    parts = parts_of(dataset, new, config.seed)
    parts.old.save(folder / "old")
    parts.all.save(folder / "all")
    console.print(f"seed {config.seed}: base")
    _, watch = whole(folder / "old", folder / "base", config)
    start = start_from(folder / "base", folder / "all", None, folder / "joined")
    start.data.save()
    log = sequences(start.data.dataset)
    settled = increment_config(start.run, log, start.memory.new_from_ms, None, [f"seed={config.seed}"])
    asked = questions_of(parts, log, settled)
    grown = IncrementTrainer(start, folder / "grown", settled, INCREMENTS["naive"])
    outcomes = {"base": Outcome(*judged(grown, asked), watch.seconds, watch.command_seconds)}
    console.print(WHOLE)
    anew = replace(config, valid_share=settled.valid_share, test_share=settled.test_share)
    run, watch = whole(start.data.path, folder / "scratch", anew)
    outcomes[WHOLE] = Outcome(*judged(run, asked), watch.seconds, watch.command_seconds)
    for name, settings in INCREMENTS.items():
        console.print(name)
        run, watch, *chosen = increment(start, folder / "base", folder / "all", folder / name, settled, settings)
        outcomes[name] = Outcome(*judged(run, asked), watch.seconds, watch.command_seconds, *chosen)
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
        times = [
            np.mean([(o.seconds, o.command_seconds, o.choice_seconds) for o in group], 0) for group in (ones, wholes)
        ]
        (seconds, command_s, choice_s), (whole_s, whole_command_s, _) = (map(float, of) for of in times)
        row |= {
            "seconds": round(seconds, 2),
            "time_of_scratch": _share(seconds, whole_s),
            "command_seconds": round(command_s, 2),
            "command_of_scratch": _share(command_s, whole_command_s),
            "choice_seconds": round(choice_s, 2),
            "choice_of_scratch": _share(command_s + choice_s, whole_command_s),
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
        settings = "".join(f" --set {one}" for one in assignments or [])
        _record(dataset.name, rows, f"--data {data.name} --new {new:g} --seeds {seeds}{settings}")


def _line(row: Mapping[str, Any]) -> str:
    """Returns a row of the table as a line."""
    parts = [f"{part} {row[f'{part}_ndcg@10']:.4f} ({row[f'{part}_of_scratch']:.1%})" for part in ("old", "new")]
    parts.append(f"{row['seconds']:8.1f} s ({row['time_of_scratch']:.1%})")
    parts.append(f"command {row['command_seconds']:8.1f} s ({row['command_of_scratch']:.1%})")
    if row["choice_seconds"]:
        parts.append(f"strength {row['strengths']} chosen in {row['choice_seconds']:.1f} s")
    return f"{row['method']:20} {'  '.join(parts)}"


def _record(name: str, rows: list[dict[str, Any]], asked: str) -> None:
    command = f"python -m loadtests.loop.forgetting {asked} --record"
    tables: dict[str, Any] = (results.load(NAME) or {}).get("tables", {})
    results.save(NAME, {"tables": {**tables, name: {"command": command, "rows": rows}}}, command=command)
    judged_row = next(row for row in rows if row["method"] == JUDGED)
    for part in ("time", "command", "choice", "new", "old"):
        row = criteria.row(criteria.forgetting(part), 100 * judged_row[f"{part}_of_scratch"], "%", command)
        results.record(results.LOOP, row)


if __name__ == "__main__":
    run_command(main)
