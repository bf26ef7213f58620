"""Plays sessions that turn pages while events come in, on two replicas.

    python -m loadtests.shop.pages --artifact DIR [--sessions 1000] [--pages 10] [--record]

A session asks for a list with pages and follows its cursors, at one replica or the other. In between its user looks at
items, of the pages to come too, and some pages exclude items. The first cursor, followed at once and to its end, tells
what the pages must be: the items of the list in their order, less those that were forbidden until then. At the end some
users are erased, and their cursors must be refused by both replicas.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from loadtests.common import results
from loadtests.harness.served_process import serve
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command

_COMMAND = "python -m loadtests.shop.pages --artifact DIR --record"
_TOKEN = "pages-token"  # noqa: S105 - of services that this command starts
_K_MAX = 20
_BUDGET_MS = 20_000
_ERASED = 0.1
_AT_ONCE = 8
REPEATS = "pages: items that came twice, {} sessions of {} pages with events in between"
GAPS = "pages: items left out, or out of order, that nothing forbade, {} sessions of {} pages with events in between"
KEPT = "pages: cursors of erased users that a replica still took, {} sessions of {} pages"
TURNED = "pages: pages turned, {} sessions of {} pages with events in between"


@dataclass(slots=True)
class Found:
    """What the sessions came to.

    Attributes:
        turned: Pages.
        items: Items on them.
        forbidden: Items of the lists that were forbidden before their page came.
        repeats: Items that came twice in a session.
        gaps: Places at which a page was not what it must be.
        erased: Users that were erased.
        kept: Cursors of theirs that a replica still took.
        unsure: Cursors of theirs that a replica could not check in time; it gives no page then.
    """

    turned: int = 0
    items: int = 0
    forbidden: int = 0
    repeats: int = 0
    gaps: int = 0
    erased: int = 0
    kept: int = 0
    unsure: int = 0

    def add(self, other: Found) -> None:
        """Adds what other sessions came to."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class Session:
    """One user who turns pages."""

    def __init__(
        self, replicas: Sequence[httpx.AsyncClient], items: Sequence[str], user: str, rng: random.Random
    ) -> None:
        """Nothing happens yet.

        Args:
            replicas: Clients of replicas on one store, with the right to erase.
            items: Ids of the catalogue.
            user: Id of the user.
            rng: Draws what happens.
        """
        self._replicas, self._items, self._user, self._rng = replicas, items, user, rng
        self._seen: set[str] = set()
        self._clock_ms = 1_700_000_000_000
        self.found = Found()

    async def play(self, pages: int) -> Found:
        """Turns pages, and returns what was found."""
        rng, k = self._rng, self._rng.randint(3, _K_MAX)
        await self._look(rng.sample(self._items, min(len(self._items), rng.randint(0, 5))))
        first = await self._ask(user_id=self._user, k=k, page=True, exclude_seen=True, **self._how())
        rest = await self._whole(first["cursor"])
        shown = _ids(first)
        self.found.turned, self.found.items = 1, len(shown)
        cursor = first["cursor"]
        for _ in range(pages - 1):
            if cursor is None:
                break
            await self._look(self._some(rest, 3))
            excluded = self._some(rest, 2)
            answer = await self._ask(cursor=cursor, k=k, exclude=excluded)
            rest = self.judged(_ids(answer), rest, {*excluded, *self._seen}, k, shown)
            cursor = answer["cursor"]
        if cursor is not None and rng.random() < _ERASED:
            await self._erase(cursor)
        return self.found

    def judged(
        self, got: Sequence[str], rest: Sequence[str], forbidden: set[str], k: int, shown: list[str]
    ) -> list[str]:
        """Compares a page with what it must be; returns what is left of the list behind it."""
        want: list[str] = []
        place = 0
        while place < len(rest) and len(want) < k:
            if rest[place] not in forbidden:
                want.append(rest[place])
            place += 1
        self.found.turned += 1
        self.found.items += len(got)
        self.found.forbidden += place - len(want)
        self.found.repeats += len(got) - len(set(got) - set(shown))
        self.found.gaps += sum(one != other for one, other in zip(got, want, strict=False)) + abs(len(got) - len(want))
        shown += got
        last = max((rest.index(item) for item in got if item in rest), default=len(rest) - 1)
        return list(rest[last + 1 :])

    async def _look(self, items: Sequence[str]) -> None:
        events = []
        for item in items:
            self._clock_ms += 1000
            events.append({"user_id": self._user, "item_id": item, "type": "view", "timestamp": self._clock_ms})
        if events:
            answer = await self._replica().post("/events", json={"events": events})
            answer.raise_for_status()
            self._seen |= set(items)

    async def _whole(self, cursor: str | None) -> list[str]:
        """All that is left of a list, read at once."""
        found: list[str] = []
        while cursor is not None:
            answer = await self._ask(cursor=cursor, k=100)
            found += _ids(answer)
            cursor = answer["cursor"]
        return found

    async def _erase(self, cursor: str) -> None:
        answer = await self._replica().delete(f"/users/{self._user}")
        answer.raise_for_status()
        self.found.erased += 1
        for replica in self._replicas:
            answer = await replica.post("/recommend", json={"cursor": cursor, "budget_ms": _BUDGET_MS})
            self.found.kept += answer.status_code == httpx.codes.OK
            self.found.unsure += answer.status_code not in (httpx.codes.OK, httpx.codes.GONE)

    async def _ask(self, **body: Any) -> dict[str, Any]:
        answer = await self._replica().post("/recommend", json={"budget_ms": _BUDGET_MS, **body})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _how(self) -> dict[str, Any]:
        """How the list is made: as the segment has it, drawn, by beam, or of named items."""
        drawn = {"strategy": "top_p", "top_p": 0.9}
        named = self._rng.sample(self._items, min(len(self._items), 300))
        beam = {"strategy": "beam"}
        choices: list[dict[str, Any]] = [{}, {"decoding": drawn}, {"decoding": beam}, {"candidates": named}]
        return self._rng.choice(choices)

    def _some(self, rest: Sequence[str], most: int) -> list[str]:
        """A few items, mostly of the pages to come."""
        near = list(rest[: 3 * _K_MAX])
        return self._rng.sample(near, min(len(near), self._rng.randint(0, most)))

    def _replica(self) -> httpx.AsyncClient:
        return self._rng.choice(self._replicas)


async def play(
    replicas: Sequence[httpx.AsyncClient], items: Sequence[str], *, sessions: int, pages: int, seed: int = 0
) -> Found:
    """Plays sessions, a few at a time.

    Args:
        replicas: Clients of replicas on one store, with the right to erase.
        items: Ids of the catalogue.
        sessions: Number of sessions.
        pages: Pages of each.
        seed: Of everything that is drawn.
    """
    total, gate = Found(), asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            rng = random.Random(f"{seed}-{number}")  # noqa: S311 - no secret
            total.add(await Session(replicas, items, f"pages-{seed}-{number}", rng).play(pages))

    await asyncio.gather(*map(one, range(sessions)))
    return total


def _ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def rows(found: Found, sessions: int, pages: int) -> list[results.Row]:
    """Returns the rows of a run; the limits were written down before it."""
    named = (sessions, pages)
    return [
        results.row(REPEATS.format(*named), found.repeats, "items", _COMMAND, at_most=0),
        results.row(GAPS.format(*named), found.gaps, "items", _COMMAND, at_most=0),
        results.row(KEPT.format(*named), found.kept, "cursors", _COMMAND, at_most=0),
        results.row(TURNED.format(*named), found.turned, "pages", _COMMAND),
    ]


async def _measured(urls: Sequence[str], items: Sequence[str], sessions: int, pages: int, seed: int) -> Found:
    headers = {"Authorization": f"Bearer {_TOKEN}"}
    clients = [httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0) for url in urls]
    try:
        return await play(clients, items, sessions=sessions, pages=pages, seed=seed)
    finally:
        for client in clients:
            await client.aclose()


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact to serve.")],
    sessions: Annotated[int, typer.Option(min=1, help="Sessions.")] = 1000,
    pages: Annotated[int, typer.Option(min=2, help="Pages of each.")] = 10,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Write rows into loadtests/results/shop.json.")] = False,
) -> None:
    """Play sessions that turn pages on two replicas."""
    items = list(Artifact.open(artifact).catalogue.item_ids)
    patient = {
        "GPT4REC_OPS_TOKENS": f"pages:{_TOKEN}", "GPT4REC_DEADLINE_MAX_MS": "60000",
        "GPT4REC_REDIS_READ_TIMEOUT_MS": "5000", "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "5000",
    }  # fmt: skip
    with (
        serve(artifact, **patient) as one,
        serve(artifact, "--redis", one.redis_url, **patient) as two,
    ):
        found = asyncio.run(_measured([one.url, two.url], items, sessions, pages, seed))
    typer.echo(str(found), err=True)
    measured = rows(found, sessions, pages)
    for row in measured:
        typer.echo(
            f"{row.criterion}: {row.value:g} {row.unit} {row.limit or ''} {'' if row.holds is None else row.holds}"
        )
        if record:
            results.record(results.SHOP, row)
    if any(row.holds is False for row in measured):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
