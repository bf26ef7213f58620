"""How often the 95 % interval of an off-policy estimate holds the truth, over many replications.

    python -m loadtests.loop.coverage [--replications 2000] [--only NAME] [--record] [--fresh]

Progress is kept in a file and taken up again. Replications whose effective sample is below the bound are left out, as
`gpt4rec ope` refuses them. Criteria are in `loadtests/loop/criteria.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from loadtests.common import results
from loadtests.loop import criteria
from loadtests.loop.slates import SETTINGS, World
from model.online.estimators import effective_lists, effective_sample, estimate
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside

_PROGRESS = Path(tempfile.gettempdir()) / "gpt4rec-loop-coverage.json"
_SAVED_EVERY = 100


@dataclass(slots=True)
class Tally:
    """What was counted of one estimator in one setting."""

    judged: int = 0
    covered: int = 0
    refused: int = 0
    width: float = 0.0
    error: float = 0.0

    @property
    def percent(self) -> float:
        """Coverage in percent."""
        return 100.0 * self.covered / self.judged if self.judged else float("nan")


@dataclass(slots=True)
class Progress:
    """What was done of one setting: the next replication, and a tally for each estimator."""

    done: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)


def replicate(world: World, seed: int, tallies: dict[str, Tally]) -> None:
    """Draws one replication, and counts which intervals hold the truth.

    Args:
        world: The world.
        seed: Number of the replication.
        tallies: Where it is counted.
    """
    terms = world.replication(seed)
    sample = {"list_ips": effective_lists(terms)}
    for name in terms.estimators:
        tally = tallies.setdefault(name, Tally())
        if sample.get(name, effective_sample(terms)) < criteria.LEAST_EFFECTIVE:
            tally.refused += 1
            continue
        found = estimate(terms, name)
        ends = found.interval()
        if ends is None:
            tally.refused += 1
            continue
        tally.judged += 1
        tally.covered += ends[0] <= world.truth <= ends[1]
        tally.width += ends[1] - ends[0]
        tally.error += found.value - world.truth


def main(
    replications: Annotated[int, typer.Option(min=1, help="Replications of each setting.")] = criteria.REPLICATIONS,
    only: Annotated[str | None, typer.Option(help="Name of one setting.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write rows into loadtests/results/loop.json.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again, without the kept progress.")] = False,
    progress_file: Annotated[Path, typer.Option(help="Where progress is kept.")] = _PROGRESS,
) -> None:
    """Measure the coverage of off-policy intervals on worlds whose truth is known."""
    kept = {} if fresh else _load(progress_file)
    for setting in SETTINGS:
        if only is not None and setting.name != only:
            continue
        progress = kept.setdefault(setting.name, Progress())
        world = World(setting)
        while progress.done < replications:
            replicate(world, progress.done, progress.tallies)
            progress.done += 1
            if progress.done % _SAVED_EVERY == 0 or progress.done == replications:
                _save(progress_file, kept)
                typer.echo(f"{setting.name}: {progress.done:,} of {replications:,}", err=True)
        for line in _lines(setting.name, world.truth, progress.tallies):
            typer.echo(line)
    if record:
        _record(kept, replications)


def _lines(name: str, truth: float, tallies: Mapping[str, Tally]) -> Iterator[str]:
    for estimator, tally in tallies.items():
        if not tally.judged:
            yield f"{name}, {estimator}: refused {tally.refused:,} times"
            continue
        width, bias = tally.width / tally.judged / truth, tally.error / tally.judged / truth
        yield (
            f"{name}, {estimator}: {tally.percent:.2f} % of {tally.judged:,} intervals hold the truth {truth:.4f}; "
            f"mean width {width:.1%}, bias {bias:+.2%}; {tally.refused:,} refused"
        )


def _record(kept: Mapping[str, Progress], replications: int) -> None:
    """Records the settings with the least and the most coverage, of those in which half of the replications count."""
    command = f"python -m loadtests.loop.coverage --replications {replications} --record"
    for estimator in criteria.ESTIMATORS:
        tallies = [one.tallies[estimator] for one in kept.values() if estimator in one.tallies]
        percents = [tally.percent for tally in tallies if tally.judged >= replications / 2]
        if percents:
            for end, value in (("least", min(percents)), ("most", max(percents))):
                row = criteria.row(criteria.coverage(estimator, end), value, "%", command)
                results.record(results.LOOP, row)


def _load(file: Path) -> dict[str, Progress]:
    if not file.exists():
        return {}
    said: dict[str, Any] = orjson.loads(file.read_bytes())
    return {
        name: Progress(one["done"], {key: Tally(**tally) for key, tally in one["tallies"].items()})
        for name, one in said.items()
    }


def _save(file: Path, kept: Mapping[str, Progress]) -> None:
    write_aside(file, orjson.dumps(dict(kept), option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    run_command(main)
