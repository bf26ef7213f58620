"""Whether a request of one space reads or changes another: requests over every route, drawn at random.

    python -m loadtests.fleet.isolation --artifact DIR [--other DIR] [--requests 10000]

One process serves three spaces on one Redis: the default one and two with keys of their own. Each request is sent to
one of them, in every way in which a caller can name a space, also by callers who try another one. After it, everything
that the others have must be as before: each Redis key, mode, policies, model, experiments, secrets and metrics. And
nothing that only they have may be in the answer.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.asgi_call import Asked, Told
from loadtests.fleet.isolation_requests import Operation, Pick, Shop, Way, drawn, fair_ways, foul_ways, operations
from loadtests.fleet.isolation_world import ROOT, Deployment, deployed
from service.cli.outermost import run_command
from service.store.redis.embedded_valkey import EmbeddedValkey

NAME, COMMAND, REQUESTS = "fleet_isolation", "python -m loadtests.fleet.isolation --artifact DIR", 10_000
# How often one space calls every operation before another one does.
_ROUNDS = 8


@dataclass(slots=True)
class Found:
    """What was seen.

    Attributes:
        requests: Requests that were answered.
        crossed: Those that read or changed another space, in words.
        routes: Requests by route.
        answers: Requests by the status of the answer.
        ways: Requests by how their caller named the space.
    """

    requests: int = 0
    crossed: list[str] = field(default_factory=list)
    routes: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)


class Caller:
    """Sends requests to one space, and looks at the other spaces after each. They must be quiet when it begins.

    Args:
        deployment: What is asked.
        name: Of the space.
        found: Where it is noted.
    """

    def __init__(self, deployment: Deployment, name: str, found: Found) -> None:
        self._deployment, self._found = deployment, found
        self._shop = deployment.shops[name]
        self._others = [one for other, one in deployment.shops.items() if other != name]
        self._states: dict[str, dict[str, object]] = {}

    async def send(self, pick: Pick[Any], operation: Operation) -> str | None:
        """Sends one request to an operation; returns what crossed, None if nothing did."""
        shop, others = self._shop, self._others
        fair = pick((True, True, False))
        way: Way = pick(fair_ways(shop, ROOT) if fair else foul_ways(shop, others, ROOT))
        asked = drawn(pick, operation, shop, way)
        for other in others:
            if other.name not in self._states:
                self._states[other.name] = await self._deployment.state(other.name)
        told = await self._deployment.ask(asked)
        self._note(operation, way, told)
        for other in others:
            crossed = self._read(told, other, operation, way) or await self._changed(other)
            if crossed is not None:
                said = f"{way.says} of {shop.name}: {_line(asked)} → {told.status}: {other.name}: {crossed}"
                self._found.crossed.append(said)
                return said
        return None

    def _note(self, operation: Operation, way: Way, told: Told) -> None:
        self._found.requests += 1
        self._found.routes[f"{operation.method} {operation.path}"] += 1
        self._found.answers[told.status] += 1
        self._found.ways[way.says] += 1

    def _read(self, told: Told, other: Shop, operation: Operation, way: Way) -> str | None:
        # The metrics of the process are those of all spaces, and the process may know their names.
        marks = [mark for mark in other.marks if not (way.reads_all and operation.path in _OF_ALL)]
        if operation.path == "/metrics" and way.by_path in (None, "default") and way.by_header in (None, "default"):
            marks = []
        return next((f"the answer holds {mark}" for mark in marks if told.holds(mark)), None)

    async def _changed(self, other: Shop) -> str | None:
        before, now = self._states[other.name], await self._deployment.state(other.name)
        self._states[other.name] = now
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return f"changed: {', '.join(sorted(changed)[:4])}" if changed else None


_OF_ALL = frozenset({"/ops/spaces", "/playground/about"})


def _line(asked: Asked) -> str:
    return f"{asked.method} {asked.target} {dict(asked.headers)} {asked.body[:200].decode('utf-8', 'replace')}"


async def run(deployment: Deployment, requests: int, seed: int, console: Console) -> Found:
    """Returns what many requests found, so many of each operation as of the others."""
    found, chance = Found(), random.Random(seed)  # noqa: S311 - no secret is made of it
    every = operations(deployment.app)
    for name in itertools.cycle(deployment.shops):
        if found.requests >= requests:
            return found
        # What a space does behind its own answers must not be taken for what another one did to it.
        await deployment.quiet()
        caller = Caller(deployment, name, found)
        for _ in range(_ROUNDS):
            for operation in chance.sample(every, len(every))[: requests - found.requests]:
                if (said := await caller.send(chance.choice, operation)) is not None:
                    console.print(said)
        console.print(f"{found.requests} requests, {len(found.crossed)} crossed")
    return found


async def _measured(folder: Path, artifacts: Sequence[Path], requests: int, seed: int, console: Console) -> Found:
    valkey = EmbeddedValkey(folder / "valkey")
    url = await asyncio.to_thread(valkey.start)
    try:
        async with deployed(folder, url, artifacts) as deployment:
            return await run(deployment, requests, seed, console)
    finally:
        await asyncio.to_thread(valkey.stop)


def main(
    artifact: Annotated[Path, typer.Option(help="Model of the default space.")],
    other: Annotated[Path | None, typer.Option(help="Model of the other spaces; without it the same.")] = None,
    requests: Annotated[int, typer.Option(help="Requests to send.")] = REQUESTS,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
) -> None:
    """Counts requests that read or changed another space, and records the count."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [artifact, other or artifact]
        found = asyncio.run(_measured(Path(folder), artifacts, requests, seed, console))
    payload = {
        "requests": found.requests,
        "seed": seed,
        "routes": dict(sorted(found.routes.items())),
        "answers": {str(status): n for status, n in sorted(found.answers.items())},
        "ways": dict(sorted(found.ways.items())),
        "crossed": found.crossed,
    }
    console.print(f"{found.requests} requests over {len(found.routes)} operations, {len(found.crossed)} crossed")
    results.save(NAME, payload, command=COMMAND, folder=out)
    if found.requests >= REQUESTS:
        row = fleet_criteria.row(fleet_criteria.SPACES_CROSSED, len(found.crossed), COMMAND)
        results.record(out / results.FLEET.name, row)
    if found.crossed:
        raise SystemExit(1)


if __name__ == "__main__":
    run_command(main)
