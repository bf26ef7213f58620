"""What a batch of lists costs: one `/recommend/batch` of 100 users against 100 single `/recommend`, in turns.

    python -m loadtests.engine.batches --artifact DIR --data DATA [--rounds 3] [--record]

Both are warm: the same users, whose states are stored, asked before. Single requests go one after another, as from a
caller who has no batches. Blocks alternate; each round starts the service anew. Processor time is that of the service
and its Valkey. Lists are made anew: where the service keeps answers, that is switched off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from loadtests.common import limit_criteria, results
from loadtests.harness.bench import PATIENT, K, batches, history, real_histories, recommend_request, settle
from loadtests.harness.paired_blocks import Block, Pair, more_of
from loadtests.harness.served_process import Process, Served, serve
from loadtests.load.open_loop_driver import Arrival, closed_now
from loadtests.load.replay import BEAM, read, send_beforehand
from service.cli.outermost import run_command

AT_ONCE = 100
HISTORY, LEAST = 50, 50
BATCH = "/recommend/batch"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often the service is started.
        pairs: Pairs of blocks in a round.
        batches: Batches of a block, and times that each user is asked for in a block of single requests.
        size: Lists of a batch.
    """

    rounds: int
    pairs: int
    batches: int
    size: int = AT_ONCE


def batch_request(names: Sequence[str]) -> Arrival:
    """Returns a batch with a list for each user, asked for as single ones are."""
    entries = [{"user_id": name, "k": K, "decoding": BEAM} for name in names]
    return Arrival(0.0, BATCH, orjson.dumps({"requests": entries, "budget_ms": 2000}))


def measure(artifact: Path, histories: Mapping[str, Sequence[str]], effort: Effort) -> Iterator[Pair]:
    """Yields pairs of blocks: in batches, one by one; a block's figures are those of a list."""
    names = list(histories)[: effort.size]
    whole = [batch_request(names)] * effort.batches
    single = [recommend_request(name, budget_ms=2000) for name in names] * effort.batches
    for number in range(effort.rounds):
        with serve(artifact, **PATIENT) as served:
            send_beforehand(served.url, list(batches(e for name in names for e in history(name, histories[name]))))
            for requests in (single, whole):
                block(served, requests, len(single))  # states and caches are filled, and nothing is measured
            for pair in range(effort.pairs):
                first = (number + pair) % 2
                found = {which: block(served, (single, whole)[which], len(single)) for which in (first, 1 - first)}
                yield found[1], found[0]


def block(served: Served, requests: Sequence[Arrival], lists: int) -> Block:
    """Sends requests one after another and returns the processor time of a list.

    Raises:
        RuntimeError: If a list is not of the rung "full".
    """
    processes: list[Process] = [served, *([served.valkey] if served.valkey is not None else [])]
    answers: list[bytes] = []
    settle(*processes)
    before = sum(process.cpu_s() for process in processes)
    report = closed_now(served.url, requests, keep=answers.append)
    time.sleep(0.4)  # what is written behind the answers
    settle(*processes)
    took_s = sum(process.cpu_s() for process in processes) - before
    if report.errors:
        raise RuntimeError(f"requests failed: {report.errors}")
    for answer in answers:
        _check(orjson.loads(answer))
    (latencies,) = report.routes.values()
    return Block(1e6 * took_s / lists, latencies.at(50) or 0.0, latencies.at(99) or 0.0)


def _check(answer: Mapping[str, Any]) -> None:
    lists = [entry["answer"] for entry in answer["answers"]] if "answers" in answer else [answer]
    for one in lists:
        if one is None or one["rung"] != "full":
            raise RuntimeError(f"not a full list: {one and one['rung']}, {one and one['reason']}")


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[Path, typer.Option(help="Data set folder with the histories.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often the service is started.")] = 3,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks in a round.")] = 8,
    per_block: Annotated[int, typer.Option(min=1, help="Batches of a block.")] = 10,
    record: Annotated[bool, typer.Option("--record", help="Write the row and the figures.")] = False,
) -> None:
    """Measure what a list costs in a batch of 100."""
    histories = real_histories(read(data), AT_ONCE, least=LEAST, longest=HISTORY)
    if len(histories) < AT_ONCE:
        raise typer.BadParameter(f"has only {len(histories)} users with {LEAST} events", param_hint="--data")
    found: list[Pair] = []
    for whole, single in measure(artifact, histories, Effort(rounds, pairs, per_block)):
        found.append((whole, single))
        typer.echo(
            f"in a batch {whole.cpu_us:.0f} µs a list (the batch in {whole.median_ms:.1f} ms), "
            f"single {single.cpu_us:.0f} µs (in {single.median_ms:.2f} ms)"
        )
    ratio, low, high = (1.0 + more / 100.0 for more in more_of(found, "cpu_us"))
    command = f"python -m loadtests.engine.batches --artifact ARTIFACT --data DATA --rounds {rounds} --record"
    row = limit_criteria.row(limit_criteria.BATCH_COST, ratio, command)
    said = f"({row.limit}: {'holds' if row.holds else 'DOES NOT HOLD'})"
    typer.echo(f"{row.criterion}: {ratio:.3f} {said}, 95 % interval {low:.3f} to {high:.3f}")
    if record:
        results.record(results.ENGINE, row)
        shown = [{"batch": asdict(whole), "single": asdict(single)} for whole, single in found]
        results.save("batches", {"size": AT_ONCE, "ratio": ratio, "interval": [low, high], "pairs": shown},
                     command=command)  # fmt: skip


if __name__ == "__main__":
    run_command(main)
