"""A flood on one space, and what the lists of another space take meanwhile: one process, two spaces.

    python -m loadtests.fleet.flood --artifact artifacts/latest [--pairs 7] [--seconds 10] [--record]

Blocks of the quiet space alone and under the flood take turns, open loop, each load from a process of its own. The
limit is p99 alone + the longest run of a batch of the flooded space, which is read from its histogram: the lower end of
the highest bucket that has a run, so the limit is rather too strict than too lax.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.flood_load import Plan, arrivals, flooding
from loadtests.harness.bench import PATIENT, batches, settle
from loadtests.harness.paired_blocks import USERS, events
from loadtests.harness.scraped import scraped
from loadtests.harness.served_process import Served, serve
from loadtests.load.arrivals import Arrival, Record
from loadtests.load.open_loop_driver import drive_now
from loadtests.load.replay import RECOMMEND, send_beforehand
from service.cli.outermost import run_command

FLOODED = "flooded"
# The flood lasts longer than the block on both sides.
_BEFORE_S, _AFTER_S = 1.0, 1.0
EXTRA: Mapping[str, str] = {
    "alone_ms": "ms",
    "flood_ms": "ms",
    "longest_ms": "ms",
    "full_share": "of the lists",
    "failed": "requests",
    "sent_a_second": "a second",
    "lists_a_second": "a second",
    "of_the_model_a_second": "a second",
    "refused_share": "of the requests",
    "server_errors": "answers",
}
_NAMES: Mapping[str, str] = {
    "alone_ms": "spaces: p99 of /recommend alone",
    "flood_ms": "spaces: p99 of /recommend under a flood on the other space",
    "longest_ms": "spaces: longest run of a batch of the flooded space, at least",
    "full_share": "spaces: lists of the rung full under a flood on the other space",
    "failed": "spaces: requests that failed under a flood on the other space",
    "sent_a_second": "spaces: requests of the flood",
    "lists_a_second": "spaces: lists of the flooded space",
    "of_the_model_a_second": "spaces: lists of the flooded space by its model",
    "refused_share": "spaces: requests of the flood answered with 429",
    "server_errors": "spaces: answers of the flooded space with a 5xx",
}


@dataclass(frozen=True, slots=True)
class Quiet:
    """What a block of the quiet space's lists took.

    Attributes:
        p99_ms: 99th percentile of the latency.
        full_share: Share of lists of the rung full.
        failed: Requests without a list.
    """

    p99_ms: float
    full_share: float
    failed: int

    @classmethod
    def of(cls, record: Record, skip_s: float) -> Quiet:
        """Reads a run; what was due in its first seconds does not count, unless it failed."""
        kept = sorted(a.took_s for a in record.answers if a.took_s is not None and a.due_s >= skip_s)
        full = sum(a.rung == "full" for a in record.answers if a.due_s >= skip_s)
        return cls(
            1e3 * kept[min(len(kept) - 1, int(0.99 * len(kept)))],
            full / len(kept),
            sum(a.status != 200 for a in record.answers),
        )


@contextmanager
def two_spaces(artifact: Path, **settings: str) -> Iterator[Served]:
    """Runs the service with a default space and one that is flooded, both on the same artefact, with histories."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpt4rec-flood-")))
        file = folder / "spaces.yaml"
        file.write_text(f"spaces:\n  {FLOODED}:\n    artifact: {artifact.resolve()}\n")
        chosen = {"GPT4REC_SPACES": str(file), "GPT4REC_EXPOSURES": "false", **settings}
        served = stack.enter_context(serve(artifact, **{**PATIENT, **chosen}))
        for below in ("", f"/spaces/{FLOODED}"):
            send_beforehand(served.url, [_below(below, one) for one in batches(events(artifact))])
        yield served


def _below(prefix: str, one: Arrival) -> Arrival:
    return Arrival(one.due_s, f"{prefix}{one.path}", one.body, one.method, one.label)


def longest_run_ms(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Returns how long the longest run of the flooded space took at least, from its histogram before and after."""
    longest = 0.0
    for stage in ("encode", "decode"):
        lower, seen = 0.0, 0.0
        for edge, count in _buckets(after, stage).items():
            new = count - _buckets(before, stage).get(edge, 0.0)
            if new > seen:
                longest, seen = max(longest, lower), new
            lower = edge
    return 1e3 * longest


def _buckets(series: Mapping[str, float], stage: str) -> dict[float, float]:
    wanted = ("gpt4rec_stage_duration_seconds_bucket{", f'space="{FLOODED}"', f'stage="{stage}"')
    found = {
        float(name.partition('le="')[2].partition('"')[0]): value
        for name, value in series.items()
        if name.startswith(wanted[0]) and wanted[1] in name and wanted[2] in name
    }
    return dict(sorted(found.items()))


def pair(
    served: Served, number: int, *, seconds: float, quiet: float, flood: float, connections: int
) -> dict[str, float]:
    """Returns the figures of a block alone and one under the flood; which is first alternates."""
    lists = arrivals(Plan(url=served.url, path=RECOMMEND, rate=quiet, seconds=seconds, users=USERS, seed=number))
    plan = Plan(
        url=served.url,
        path=f"/spaces/{FLOODED}{RECOMMEND}",
        rate=flood,
        seconds=seconds + _BEFORE_S + _AFTER_S,
        connections=connections,
        users=USERS,
        seed=1000 + number,
    )
    found: dict[str, float] = {}

    def alone() -> None:
        settle(served, within_s=20.0)
        found["alone_ms"] = _quiet(served, lists).p99_ms

    def flooded() -> None:
        settle(served, within_s=20.0)
        before = scraped(served.url)
        with flooding(plan) as other:
            under = _quiet(served, lists)
            found.update(other.ended())
        found["longest_ms"] = longest_run_ms(before, scraped(served.url))
        found.update(flood_ms=under.p99_ms, full_share=under.full_share, failed=float(under.failed))

    for part in (alone, flooded) if number % 2 == 0 else (flooded, alone):
        part()
    return found


def _quiet(served: Served, lists: Sequence[Arrival]) -> Quiet:
    record = Record()
    drive_now(served.url, lists, connections=16, warmup_s=0.0, record=record)
    return Quiet.of(record, _BEFORE_S)


def ratio(found: Mapping[str, float]) -> float:
    """Returns the figure of the criterion for one pair."""
    return found["flood_ms"] / (found["alone_ms"] + found["longest_ms"])


def median(pairs: Sequence[Mapping[str, float]], figure: str) -> float:
    """Returns the median of a figure over the pairs; of counts of failures the sum."""
    values = sorted(one[figure] for one in pairs)
    return sum(values) if figure in ("failed", "server_errors") else values[len(values) // 2]


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder; both spaces serve it.")],
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks.")] = 7,
    seconds: Annotated[float, typer.Option(min=3, help="Length of a block.")] = 10.0,
    quiet: Annotated[float, typer.Option(min=1, help="Lists a second of the space that is not flooded.")] = 50.0,
    flood: Annotated[float, typer.Option(min=1, help="Lists a second of the flood.")] = 2000.0,
    connections: Annotated[int, typer.Option(min=1, help="Connections of the flood.")] = 256,
    inflight_max: Annotated[int, typer.Option(min=1, help="Bound of a space's requests in progress.")] = 64,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/fleet.json.")] = False,
) -> None:
    """Measures what a flood on one space does to the lists of another."""
    with two_spaces(artifact, GPT4REC_INFLIGHT_MAX=str(inflight_max)) as served:
        options = {"seconds": seconds, "quiet": quiet, "flood": flood}
        pair(served, 0, **{**options, "seconds": 3.0}, connections=connections)  # nothing of it is measured
        found = []
        for number in range(pairs):
            found.append(pair(served, number, **options, connections=connections))
            shown = ", ".join(f"{name} {found[-1][name]:.4g}" for name in EXTRA)
            typer.echo(f"ratio {ratio(found[-1]):.3f}: {shown}")
    command = (
        f"python -m loadtests.fleet.flood --artifact ARTEFACT --pairs {pairs} --seconds {seconds:g} --quiet {quiet:g} "
        f"--flood {flood:g} --connections {connections} --inflight-max {inflight_max} --record"
    )
    value = sorted(map(ratio, found))[len(found) // 2]
    rows = [fleet_criteria.row(fleet_criteria.SPACES_FLOOD, round(value, 4), command)]
    rows += [results.row(_NAMES[name], round(median(found, name), 4), unit, command) for name, unit in EXTRA.items()]
    for row in rows:
        typer.echo(f"{row.criterion}: {row.value} {row.unit}")
        if record:
            results.record(results.FLEET, row)


if __name__ == "__main__":
    run_command(main)
