"""Hostile requests by kind, and the process that sends them.

A process of its own, so that the generator of the other load does not wait with it. The bytes are made beforehand, and
of an answer only its statuses are noted.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from loadtests.load.arrivals import Target
from loadtests.load.open_loop_driver import target
from service.artifact.artifact import Artifact

MIB = 2**20
# Sent before the rest of a request, so that the head arrives alone.
_APART_S = 0.02
# An answer ends when nothing follows it for so long: a second answer is then a request that was smuggled.
_ANSWER_S, _FOLLOWS_S = 30.0, 0.2
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_VALUES_MAX = 200

Pieces = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of hostile request.

    Attributes:
        name: Name of the kind in the rows.
        text: What is sent, for the document.
        grows_mib: By how much the memory of the service may grow: the bound of docs/security.md, and 32 MiB for what
            the allocator keeps.
        make: Given the artefact, the pieces of each request, without end.
    """

    name: str
    text: str
    grows_mib: float
    make: Callable[[Path], Iterator[Pieces]]


def _request(body: bytes, *headers: bytes, path: bytes = b"/recommend", length: int | None = None) -> Pieces:
    lines = [b"POST %s HTTP/1.1" % path, b"Host: localhost", b"Content-Type: application/json", *headers,
             b"Content-Length: %d" % (len(body) if length is None else length)]  # fmt: skip
    return b"\r\n".join([*lines, b"", b""]), body


def _many_members(_artifact: Path) -> Iterator[Pieces]:
    """Yields bodies of 1 MB whose members are all wrong."""
    many = b",".join([b'"k":[]'] * 140_000)
    unknown = b",".join(b'"k%d":0' % n for n in range(90_000))
    bodies = (
        (b"/recommend", b'{"user_id":"u","context":{%s}}' % many),
        (b"/recommend", b'{"user_id":"u",%s}' % unknown),
        (b"/events", b'{"events":[%s]}' % b",".join([b"{}"] * 330_000)),
        (b"/events", b'{"events":[{%s}]}' % unknown),
    )
    yield from itertools.cycle([_request(body, path=path) for path, body in bodies])


def _new_filters(artifact: Path) -> Iterator[Pieces]:
    """Yields filters that were never asked for: a known value beside an unknown one, and new sets of known ones."""
    columns = Artifact.open(artifact).catalogue.columns
    found = {value for n in range(min(len(columns.ids), 10_000)) for value in columns.item(n).category}
    values = sorted(found)[:_VALUES_MAX] or ["Drama"]
    rng = np.random.default_rng(0)
    for number in itertools.count():
        some = rng.permutation(len(values))[: 1 + number % 8].tolist()
        wanted = [values[0], f"z{number}"] if number % 2 else [values[one] for one in some]
        yield _request(orjson.dumps({"user_id": f"hostile-{number}", "filter": {"category": wanted}}))


def _held_bodies(_artifact: Path) -> Iterator[Pieces]:
    """Yields bodies of 1 MB of which the last byte never comes."""
    yield from itertools.repeat(_request(b" " * 999_999, length=1_000_000))


def _smuggled(_artifact: Path) -> Iterator[Pieces]:
    """Yields requests that ask to go on in HTTP/2, with a request as their body."""
    inner = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    yield from itertools.repeat(_request(inner, *upgrade))


_RECEIVING_MIB, _FILTERS_MIB, _SLACK_MIB = 64.0, 128.0, 32.0
KINDS = (
    Kind("error reports", "bodies of 1 MB with 90,000 to 330,000 members, all wrong", _RECEIVING_MIB + _SLACK_MIB,
         _many_members),
    Kind("filters", "filters that are new each time, of known and unknown values", _FILTERS_MIB + _SLACK_MIB,
         _new_filters),
    Kind("bodies held open", "bodies of 1 MB whose last byte never comes", _RECEIVING_MIB + _SLACK_MIB, _held_bodies),
    Kind("upgrades", "POST with Upgrade: h2c, and a request as its body", _RECEIVING_MIB + _SLACK_MIB, _smuggled),
)  # fmt: skip


@contextmanager
def sent(kind: Kind, url: str, artifact: Path, *, begins_at: float, rate: float, count: int) -> Iterator[Counter[str]]:
    """Sends hostile requests in another process while the body runs.

    Args:
        kind: What to send.
        url: URL of the service.
        artifact: The artefact that it serves.
        begins_at: When the first is due, of `time.monotonic`.
        rate: Requests a second.
        count: How many.

    Yields:
        The outcomes, filled in when the body has ended: "422", or "200 400" for a request that was answered twice,
        or how its connection ended.
    """
    context = multiprocessing.get_context("spawn")
    told, outcomes = context.SimpleQueue(), Counter[str]()
    number = KINDS.index(kind)
    sending = context.Process(target=_send, args=(number, target(url), artifact, begins_at, rate, count, told))
    sending.start()
    try:
        yield outcomes
        outcomes.update(told.get())
    finally:
        sending.kill()
        sending.join()
        told.close()


def _send(
    number: int, to: Target, artifact: Path, begins_at: float, rate: float, count: int,
    told: multiprocessing.queues.SimpleQueue[Counter[str]],
) -> None:  # fmt: skip
    requests = list(itertools.islice(KINDS[number].make(artifact), count))
    told.put(asyncio.run(send_all(to, requests, begins_at=begins_at, rate=rate)))


async def send_all(
    to: Target, requests: Sequence[Pieces], *, begins_at: float, rate: float, answer_s: float = _ANSWER_S
) -> Counter[str]:
    """Sends requests, each on a connection of its own, and counts the outcomes as `sent` does.

    Args:
        to: The service.
        requests: The pieces of each.
        begins_at: When the first is due, of `time.monotonic`.
        rate: Requests a second.
        answer_s: Longest wait for an answer.
    """
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, pieces in enumerate(requests):
            await asyncio.sleep(max(0.0, begins_at + number / rate - time.monotonic()))
            tasks.append(group.create_task(_send_one(to, pieces, answer_s)))
    return Counter(task.result() for task in tasks)


async def _send_one(to: Target, pieces: Pieces, answer_s: float) -> str:
    try:
        reader, writer = await asyncio.open_connection(to.host, to.port)
    except OSError as error:
        return f"not connected: {type(error).__name__}"
    answer, wait_s = b"", answer_s
    try:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(_APART_S)
            writer.write(piece)
        while piece := await asyncio.wait_for(reader.read(MIB), wait_s):
            answer, wait_s = answer + piece, _FOLLOWS_S
    except OSError:
        pass  # reset, or nothing more in time; what came before counts
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return " ".join(status.decode() for status in _STATUS.findall(answer)) or "no answer"
