"""Visits over HTTP, as the client of a shop makes them: a list, its impression, and the clicks on it; and made traffic.

Every event names the list that led to it. Event ids follow from the visit, so a visit that is made again after a crash
adds nothing to what was stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from loadtests.simulator.past import Click
from loadtests.simulator.people import People
from loadtests.simulator.world import World
from service.common.errors import ServiceError

_T = TypeVar("_T")
_PATIENCE_S = 60.0
_FULL = "full"
_BATCH = 500
# Visits after which progress is told.
CHUNK = 400


class VisitError(ServiceError):
    """The service did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What visits came to.

    Attributes:
        lists: Lists that were shown.
        clicks: Items that were clicked.
        expected: Sum of the probabilities of all clicks.
        below: Lists that came from below the model.
    """

    lists: int = 0
    clicks: int = 0
    expected: float = 0.0
    below: int = 0

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.lists + other.lists, self.clicks + other.clicks, self.expected + other.expected,
            self.below + other.below,
        )  # fmt: skip


class Client:
    """One keep-alive connection.

    Args:
        url: URL of the service.
    """

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE_S)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answer to a request.

        Raises:
            VisitError: It is no answer, or not one of status 200.
        """
        try:
            self._connection.request("POST", path, orjson.dumps(body), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException) as error:
            raise VisitError(f"{path} was not answered: {error!r}") from error
        if answer.status != 200:
            raise VisitError(f"{path} was answered with {answer.status}: {text[:300].decode(errors='replace')}")
        found: dict[str, Any] = orjson.loads(text)
        return found

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


class Visitors:
    """The users of a world as clients of a service.

    Args:
        url: URL of the service.
        people: The users.
        k: Items of a list.
        connections: Connections, each with users of its own, so that the visits of one user stay in order.
    """

    def __init__(self, url: str, people: People, k: int = 10, connections: int = 4) -> None:
        self._url, self._people, self._k, self._connections = url, people, k, connections

    def visit(self, users: Sequence[int], phase: int, tell: Callable[[Seen], None] = lambda _: None) -> Seen:
        """Has each of the users visit once, in turn.

        Args:
            users: Numbers of the users; who is there twice visits twice.
            phase: Before or after the drift.
            tell: Called with what the visits came to so far, now and then.

        Raises:
            VisitError: The service did not answer.
        """
        clients = [Client(self._url) for _ in range(self._connections)]
        total = Seen()
        try:
            with ThreadPoolExecutor(self._connections) as pool:
                for chunk in _parts(users, CHUNK):
                    shares = [[user for user in chunk if user % len(clients) == own] for own in range(len(clients))]
                    work = zip(clients, shares, strict=True)
                    parts = [pool.submit(self._some, client, mine, phase) for client, mine in work]
                    for part in parts:
                        total += part.result()
                    tell(total)
        finally:
            for client in clients:
                client.close()
        return total

    def _some(self, client: Client, users: Iterable[int], phase: int) -> Seen:
        total = Seen()
        for user in users:
            total += self._one(client, user, phase)
        return total

    def _one(self, client: Client, user: int, phase: int) -> Seen:
        world = self._people.world
        name, number = world.user_ids[user], int(self._people.visits[user])
        # Visits are minutes apart here and days apart in the life that they stand for, so each has a list of its own.
        answer = client.post("/recommend", {"user_id": name, "k": self._k, "seed": "fresh"})
        listed = [item["item_id"] for item in answer["items"]]
        visit = self._people.visit(user, world.indices(listed), phase)
        clicked = [item for item, click in zip(listed, visit.clicked.tolist(), strict=True) if click]
        common = {"user_id": name, "timestamp": int(time.time() * 1000), "list_id": answer["list_id"]}
        events = [common | {"type": "impression", "event_id": f"v{number}"}]
        events += [
            common | {"type": "click", "item_id": item, "event_id": f"v{number}-{item}"} for item in clicked
        ]  # fmt: skip
        client.post("/events", {"events": events})
        return Seen(1, len(clicked), float(visit.chance.sum()), int(answer["rung"] != _FULL))


def make_traffic(url: str, bots: Sequence[str], lists: int, k: int = 10) -> int:
    """Has programs ask for lists and click on everything, as fast as they can.

    Args:
        url: URL of the service.
        bots: Their ids.
        lists: Lists of each.
        k: Items of a list.

    Returns:
        The number of clicks.

    Raises:
        VisitError: The service did not answer.
    """
    client, clicks = Client(url), 0
    try:
        for bot in bots:
            for _ in range(lists):
                answer = client.post("/recommend", {"user_id": bot, "k": k})
                if not answer["items"]:
                    break  # it has clicked on everything that there is
                now_ms = int(time.time() * 1000)
                common = {"user_id": bot, "timestamp": now_ms, "list_id": answer["list_id"]}
                events = [common | {"type": "impression", "item_id": answer["items"][0]["item_id"]}]
                events += [common | {"type": "click", "item_id": item["item_id"]} for item in answer["items"]]
                client.post("/events", {"events": events})
                clicks += len(answer["items"])
    finally:
        client.close()
    return clicks


def send_past(url: str, world: World, clicks: Iterable[Click]) -> None:
    """Stores what users did before the service began, so that it knows their histories.

    Args:
        url: URL of the service.
        world: The users and items.
        clicks: Their clicks.

    Raises:
        VisitError: The service did not answer.
    """
    client = Client(url)
    try:
        for some in _parts(clicks, _BATCH):
            events = [
                {
                    "user_id": world.user_ids[click.user],
                    "item_id": world.item_ids[click.item],
                    "type": "click",
                    "timestamp": click.time_ms,
                    "event_id": f"past-{click.item}",
                }
                for click in some
            ]
            client.post("/events", {"events": events})
    finally:
        client.close()


def _parts(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields the values in lists of at most `size`."""
    left = iter(values)
    while part := list(islice(left, size)):
        yield part
