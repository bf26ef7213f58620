"""The live catalogue on two replicas under load: `python -m loadtests.shop.catalogue --artifact DIR`.

Two services share a Valkey that belongs to neither. A trial stores a new item at one of them and asks both to rank it
until both do; then it disables the item at the other one, and asks until neither does. After the trials, lists are
asked for at a steady rate, in blocks without changes and blocks during which thousands of items change: prices, stocks
and titles of exported items, and new items among them. Times count from the answer to a change. The limits are in
`catalogue_criteria.py`.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.common.hdr import Latencies
from loadtests.harness.bench import Bench, batches, history, load, recommend_request, warm
from loadtests.harness.served_process import Served, serve
from loadtests.load.open_loop_driver import Arrival, drive_now, poisson
from loadtests.load.replay import RECOMMEND
from loadtests.shop import catalogue_criteria as criteria
from loadtests.shop.catalogue_replica import AFTERWARDS, Replica
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command
from service.store.redis.embedded_valkey import EmbeddedValkey

_OPS = {"GPT4REC_OPS_TOKENS": "load:load"}
# Lists a second, of each replica.
RATE = 20.0
BUDGET_MS = 80.0
_USERS, _EVENTS_EACH = 400, 20
# Of 100 changes so many store a new item.
_NEW_OF_100 = 5
_PIECE_S = 2.0
_TRIES = 10
# The machine may be busy with other things, and a change that waits is no failure.
_PATIENT = {"GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000"}


Blocks = tuple[list[Latencies], list[Latencies]]


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds until both replicas listed an item, and until the last list that had it; and lists that had it later."""

    new_s: float
    gone_s: float
    back: int


class Shop:
    """The replicas, and the items of their artefact."""

    def __init__(self, bench: Bench, served: Sequence[Served]) -> None:
        self._bench, self.served = bench, served
        self.replicas = [Replica(one.url) for one in served]
        ids = Artifact.open(bench.artifact).catalogue.item_ids
        self.items = [ids[n] for n in range(len(ids))]
        self._bodies = self._users()
        self._numbers = count()
        self.repeated = 0

    def _users(self) -> list[bytes]:
        """Stores histories of random items, and returns the body of each user's /recommend."""
        rng = random.Random(0)  # noqa: S311 - a choice, repeatable
        names = [f"user-{n}" for n in range(self._bench.some(_USERS, 60))]
        length = min(_EVENTS_EACH, len(self.items) // 2)
        events = (one for name in names for one in history(name, rng.sample(self.items, length)))
        load(self._bench, self.served[0].url, "histories", list(batches(events)))
        warm(self._bench, self.served[0].url, names)
        return [recommend_request(name).body for name in names]

    def _arrivals(self, seconds: float, seed: int) -> list[Arrival]:
        """Poisson arrivals of users drawn at random."""
        rng = np.random.default_rng(seed)
        dues = poisson(rng, RATE, seconds).tolist()
        who = rng.integers(len(self._bodies), size=len(dues)).tolist()
        return [Arrival(due, RECOMMEND, self._bodies[n]) for due, n in zip(dues, who, strict=True)]

    def trials(self, n: int) -> list[Trial]:
        """Runs trials under the load."""
        rng = random.Random(0)  # noqa: S311 - a choice, repeatable
        with ThreadPoolExecutor(len(self.replicas)) as threads, self._bench.progress("trials", n) as advance:
            trials = []
            for number in range(n):
                item, beside = f"trial-{time.time_ns()}", rng.sample(self.items, min(9, len(self.items)))
                first, other = self.replicas[number % 2], self.replicas[1 - number % 2]
                body = {"title": f"Trial {number}", "like": rng.sample(self.items, 2)}
                first.call("PUT", f"/items/{item}", orjson.dumps(body))
                since = time.perf_counter()
                new = list(
                    threads.map(Replica.listed_after, self.replicas, repeat(item), repeat(beside), repeat(since))
                )
                other.call("POST", f"/items/{item}/disable")
                since = time.perf_counter()
                gone = list(threads.map(Replica.gone_after, self.replicas, repeat(item), repeat(beside), repeat(since)))
                trials.append(Trial(max(new), max(took for took, _ in gone), sum(back for _, back in gone)))
                advance()
        return trials

    def lists(self, seconds: float, seed: int) -> list[Latencies]:
        """Asks every replica for lists at the rate; returns their latencies."""

        def run(n: int) -> Latencies:
            return drive_now(self.replicas[n].url, self._arrivals(seconds, seed + n), connections=16).routes[
                "/recommend"
            ]

        with ThreadPoolExecutor(len(self.replicas)) as threads:
            return list(threads.map(run, range(len(self.replicas))))

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Keeps the load of lists while the body runs."""
        stop = threading.Event()

        def run() -> None:
            for seed in count(1000, len(self.replicas)):
                if stop.is_set():
                    return
                self.lists(_PIECE_S, seed)

        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(run)
            try:
                yield
            finally:
                stop.set()
            running.result()

    @contextmanager
    def changing(self, per_minute: float) -> Iterator[Counter[str]]:
        """Changes items at a steady rate while the body runs, once a second at each replica in turn.

        Yields:
            Changes by outcome, complete when the body has ended.
        """
        stop, outcomes = threading.Event(), Counter[str]()
        writers = [Replica(one.url) for one in self.replicas]

        def run() -> None:
            began, sent, first = time.perf_counter(), 0, next(self._numbers)
            rng = random.Random(first)  # noqa: S311 - a choice, repeatable
            for second in count(1):
                due = round(second * per_minute / 60.0)
                lines = b"\n".join(orjson.dumps(self._change(rng, n, f"{first}-{n}")) for n in range(sent, due))
                outcomes.update(self._imported(writers[second % len(writers)], lines))
                sent = due
                if stop.wait(max(0.0, began + second - time.perf_counter())):
                    return

        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(run)
            try:
                yield outcomes
            finally:
                stop.set()
            running.result()
        for writer in writers:
            writer.close()

    def _imported(self, writer: Replica, lines: bytes) -> Mapping[str, int]:
        """Sends an import again while Redis is too slow, as every client should."""
        for _ in range(_TRIES):
            try:
                counts: Mapping[str, int] = writer.call("POST", "/items", lines)["counts"]
            except RuntimeError as error:
                if "503" not in str(error):
                    raise
                self.repeated += 1
            else:
                return counts
        raise RuntimeError(f"an import failed {_TRIES} times")

    def _change(self, rng: random.Random, n: int, name: str) -> Mapping[str, Any]:
        item, price = rng.choice(self.items), round(rng.uniform(1, 100), 2)
        if n % 100 < _NEW_OF_100:
            return {"item_id": f"new-{name}", "title": f"New {n}", "like": [item], "price": price}
        kinds: tuple[dict[str, Any], ...] = ({"price": price}, {"stock": n % 50 + 1}, {"title": f"Renamed {n}"})
        return {"item_id": item, "op": "patch", **kinds[n % len(kinds)]}


@contextmanager
def opened(bench: Bench) -> Iterator[Shop]:
    """Yields a shop with two replicas."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpt4rec-catalogue-")))
        server = stack.enter_context(EmbeddedValkey(folder / "db"))
        served = [
            stack.enter_context(
                serve(bench.artifact, "--redis", server.url, GPT4REC_DATA_DIR=str(folder / name), **_OPS, **_PATIENT)
            )
            for name in ("one", "other")
        ]
        shop = Shop(bench, served)
        for replica in shop.replicas:
            stack.callback(replica.close)
        yield shop


def run(bench: Bench, trials: int, pairs: int, block_s: float) -> list[Trial]:
    """Measures, and records the rows.

    Args:
        bench: The run.
        trials: Trials.
        pairs: Pairs of blocks of lists, one without changes and one with them.
        block_s: Seconds of a block.

    Returns:
        The trials.
    """
    with opened(bench) as shop:
        with shop.loaded():
            found = shop.trials(trials)
        _trial_rows(bench, found)
        blocks, made = _blocks(bench, shop, pairs, block_s)
    bench.row(criteria.UPDATES, made, "a minute")
    _list_rows(bench, blocks)
    return found


def _blocks(bench: Bench, shop: Shop, pairs: int, block_s: float) -> tuple[Blocks, float]:
    """Returns the latencies of each block without and with changes, and the changes a minute."""
    without: list[Latencies] = []
    during: list[Latencies] = []
    outcomes, seconds = Counter[str](), 0.0
    used = {False: 0.0, True: 0.0}
    with bench.progress("pairs of blocks", pairs) as advance:
        for pair in range(pairs):
            for changes in ((False, True), (True, False))[pair % 2]:
                began, cpu_s = time.perf_counter(), sum(one.cpu_s() for one in shop.served)
                if changes:
                    with shop.changing(criteria.UPDATES_PER_MINUTE) as made:
                        during.append(_merged(shop.lists(block_s, 2 * pair)))
                    outcomes, seconds = outcomes + made, seconds + time.perf_counter() - began
                else:
                    without.append(_merged(shop.lists(block_s, 2 * pair)))
                used[changes] += sum(one.cpu_s() for one in shop.served) - cpu_s
            advance()
    cores = (used[True] - used[False]) / (pairs * block_s * len(shop.served))
    bench.row(criteria.CPU, cores, "cores", at_most=criteria.CORES)
    if refused := outcomes.keys() - {"created", "updated", "unchanged"}:
        raise RuntimeError(f"changes were refused: {', '.join(sorted(refused))}")
    return (without, during), outcomes.total() / seconds * 60.0


def _list_rows(bench: Bench, blocks: Blocks) -> None:
    without, during = blocks
    budget = f"of the lists, budget {BUDGET_MS:g} ms"
    more = statistics.fmean(_late(b) - _late(a) for a, b in zip(without, during, strict=True))
    bench.row(criteria.MORE_LATE, more, budget, at_most=criteria.LATER)
    for latencies, late, median, tail in (
        (_merged(without), criteria.LATE_WITHOUT, criteria.MEDIAN_WITHOUT, criteria.TAIL_WITHOUT),
        (_merged(during), criteria.LATE_DURING, criteria.MEDIAN_DURING, criteria.TAIL_DURING),
    ):
        bench.row(late, _late(latencies), budget)
        bench.row(median, latencies.at(50.0) or 0.0, "ms")
        bench.row(tail, latencies.at(99.0) or 0.0, "ms")


def _trial_rows(bench: Bench, found: Sequence[Trial]) -> None:
    n = len(found)
    for name, longest, times, limit_s in (
        (criteria.NEW, criteria.NEW_LONGEST, [one.new_s for one in found], criteria.NEW_S),
        (criteria.GONE, criteria.GONE_LONGEST, [one.gone_s for one in found], criteria.GONE_S),
    ):
        within = sum(took <= limit_s for took in times)
        bench.row(name, within, f"of {n} trials within {limit_s:g} s", at_least=n)
        bench.row(longest, max(times), "s", at_most=limit_s)
    bench.row(criteria.BACK, sum(one.back for one in found), f"of {2 * AFTERWARDS * n:,} lists", at_most=0)


def _merged(parts: Sequence[Latencies]) -> Latencies:
    whole = Latencies()
    for part in parts:
        whole.add(part)
    return whole


def _late(latencies: Latencies) -> float:
    """The share of lists that took longer than the budget."""
    return latencies.share_above(BUDGET_MS)


def main(
    artifact: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials.")] = criteria.TRIALS,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks of lists.")] = criteria.PAIRS,
    block_s: Annotated[float, typer.Option(min=1.5, help="Seconds of a block.")] = criteria.BLOCK_S,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Few users, to try the command.")] = False,
) -> None:
    """Measures the live catalogue on two replicas under load."""
    if quick and out == results.RESULTS:
        raise typer.BadParameter("a quick run does not replace the recorded figures: give another --out")
    command = f"python -m loadtests.shop.catalogue --artifact {artifact.name}"
    bench = Bench(artifact, None, command, Console(), out, quick, results.SHOP.name)
    run(bench, trials, pairs, block_s)


if __name__ == "__main__":
    run_command(main)
