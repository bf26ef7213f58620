"""How often the sequential test of experiments is wrong, how soon it is right, and how soon a bad canary is back.

    python -m loadtests.loop.sequential [aa|shares|drop|canary] [--runs 2000] [--record] [--fresh]

`aa` has two equal arms, looked at every hour for two weeks, `shares` asks of the same whether the check of shares says
they are uneven; `drop` has an arm with a tenth fewer clicks, `canary` one with half the clicks, judged as the service
judges it at every hundred of its lists. Sums are those of the sink. Progress is kept in a file and taken up again.
Criteria are in `loadtests/loop/criteria.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from loadtests.common import results
from loadtests.loop import criteria
from loadtests.loop.users import Experiment, Traffic
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.experiments.canary import judge
from service.experiments.counts import ArmCounts
from service.experiments.document import Document, ExperimentSpec
from service.experiments.sequential import ALPHA, compare, share_mismatch

_PROGRESS = Path(tempfile.gettempdir()) / "gpt4rec-loop-sequential.json"
_SAVED_EVERY = 25
_LOOK_EVERY = 100


@dataclass(slots=True)
class Progress:
    """What was done of one question: the next run, and of each alarm the lists shown until then."""

    done: int = 0
    alarms: list[int] = field(default_factory=list)


def first_alarm(traffic: Traffic, effect: float, seed: int, lists_max: int | None = None) -> int | None:
    """Runs an experiment that is looked at every hour.

    Args:
        traffic: Its traffic.
        effect: Relative change of the click-through in the second arm.
        seed: Seed of the run.
        lists_max: Lists of both arms after which it ends; None for its hours alone.

    Returns:
        The lists shown until the test called the arms different; None if it never did.
    """
    run = Experiment(traffic, effect, seed)
    for _ in range(traffic.hours):
        run.hour()
        if lists_max is not None and run.lists > lists_max:
            return None
        if compare(*run.sums).p <= ALPHA:
            return run.lists
    return None


def first_return(traffic: Traffic, effect: float, seed: int, lists_max: int) -> int | None:
    """Runs a canary that the service judges every hundred of its lists; returns its lists until it went back."""
    run = Experiment(traffic, effect, seed)
    arms = [{"name": "old", "share": 1.0 - traffic.share}, {"name": "new", "share": traffic.share}]
    spec = ExperimentSpec.model_validate({"name": "canary", "arms": arms, "guardrails": {}})
    experiment = Document().started(spec, 0).experiments[0]
    while run.sums[1].lists < lists_max:
        run.show(round(_LOOK_EVERY / traffic.share))
        counts = {arm: ArmCounts(sums.lists, sums=sums) for arm, sums in zip(("old", "new"), run.sums, strict=True)}
        if judge(experiment, counts).action == "back":
            return run.sums[1].lists
    return None


def first_mismatch(traffic: Traffic, seed: int) -> int | None:
    """Runs two equal arms; returns the lists until the check of shares, made every hour, said that they are uneven."""
    run = Experiment(traffic, 0.0, seed)
    for _ in range(traffic.hours):
        run.hour()
        subjects = [one.subjects for one in run.sums]
        if share_mismatch(subjects, [1.0 - traffic.share, traffic.share]).mismatch:
            return run.lists
    return None


def _aa(seed: int) -> int | None:
    return first_alarm(Traffic(), 0.0, seed)


def _drop(seed: int) -> int | None:
    return first_alarm(Traffic(hours=42 * 24), -0.1, 100_000 + seed, criteria.SEQUENTIAL_LISTS)


def _canary(seed: int) -> int | None:
    back = first_return(Traffic(share=0.2), -0.5, 200_000 + seed, criteria.CANARY_LISTS)
    return back if back is not None and back <= criteria.CANARY_LISTS else None


def _shares(seed: int) -> int | None:
    return first_mismatch(Traffic(), seed)


QUESTIONS: dict[str, tuple[Callable[[int], int | None], str]] = {
    "aa": (_aa, criteria.FALSE_ALARMS),
    "shares": (_shares, criteria.FALSE_MISMATCHES),
    "drop": (_drop, criteria.DROPS_FOUND),
    "canary": (_canary, criteria.CANARIES_BACK),
}


def main(
    what: Annotated[str, typer.Argument(help="all, aa, shares, drop or canary.")] = "all",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each question.")] = criteria.SEQUENTIAL_RUNS,
    record: Annotated[bool, typer.Option("--record", help="Write rows into loadtests/results/loop.json.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again, without the kept progress.")] = False,
    progress_file: Annotated[Path, typer.Option(help="Where progress is kept.")] = _PROGRESS,
) -> None:
    """Measure the sequential test on experiments whose truth is known."""
    if what != "all" and what not in QUESTIONS:
        raise typer.BadParameter("all, " + ", ".join(QUESTIONS), param_hint="WHAT")
    kept = {} if fresh else _load(progress_file)
    for name, (run, criterion) in QUESTIONS.items():
        if what not in ("all", name):
            continue
        progress = kept.setdefault(name, Progress())
        while progress.done < runs:
            lists = run(progress.done)
            progress.alarms += [] if lists is None else [lists]
            progress.done += 1
            if progress.done % _SAVED_EVERY == 0 or progress.done == runs:
                write_aside(progress_file, orjson.dumps(kept, option=orjson.OPT_INDENT_2))
                typer.echo(f"{name}: {progress.done:,} of {runs:,}, {len(progress.alarms):,} alarms", err=True)
        percent = 100.0 * len(progress.alarms) / progress.done
        half = f", half of them by {int(np.median(progress.alarms)):,} lists" if progress.alarms else ""
        typer.echo(f"{criterion}: {percent:.2f} % of {progress.done:,}{half}")
        if record:
            command = f"python -m loadtests.loop.sequential {name} --runs {progress.done} --record"
            results.record(results.LOOP, criteria.row(criterion, percent, "%", command))


def _load(file: Path) -> dict[str, Progress]:
    if not file.exists():
        return {}
    said: dict[str, Any] = orjson.loads(file.read_bytes())
    return {name: Progress(one["done"], one["alarms"]) for name, one in said.items()}


if __name__ == "__main__":
    run_command(main)
