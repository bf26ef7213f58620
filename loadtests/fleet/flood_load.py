"""A flood of lists on one space, from a process of its own: `python -m loadtests.fleet.flood_load PLAN`.

The plan is JSON: url, path, rate, seconds, connections, users, seed. The process says `begun` when the first request is
about to be sent, and its outcomes as JSON when the last one was answered or given up.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO

import numpy as np
import orjson

from loadtests.load.arrivals import Record
from loadtests.load.open_loop_driver import Arrival, drive_now, poisson

_ENDS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is sent.

    Attributes:
        url: URL of the service.
        path: Path of the lists.
        rate: Lists a second.
        seconds: For how long.
        connections: Over how many connections.
        users: Number of users, who take turns at random.
        seed: Of the draws.
    """

    url: str
    path: str
    rate: float
    seconds: float
    connections: int = 64
    users: int = 64
    seed: int = 0


def arrivals(plan: Plan) -> list[Arrival]:
    """Returns the lists as they are due."""
    rng = np.random.default_rng(plan.seed)
    return [
        Arrival(due, plan.path, orjson.dumps({"user_id": f"u{rng.integers(plan.users)}", "k": 10}))
        for due in poisson(rng, plan.rate, plan.seconds)
    ]


def outcomes(record: Record, seconds: float) -> dict[str, float]:
    """Returns rates and shares of what came of the flood."""
    statuses = Counter(answer.status for answer in record.answers)
    rungs = Counter(answer.rung for answer in record.answers if answer.status == 200)
    sent = len(record.answers)
    return {
        "sent_a_second": sent / seconds,
        "lists_a_second": statuses[200] / seconds,
        "of_the_model_a_second": (rungs["full"] + rungs["narrow"]) / seconds,
        "refused_share": statuses[429] / max(1, sent),
        "server_errors": float(sum(n for status, n in statuses.items() if isinstance(status, int) and status >= 500)),
        "unanswered": float(sum(n for status, n in statuses.items() if not isinstance(status, int))),
    }


class Flood:
    """A flood under way in another process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ended(self) -> dict[str, float]:
        """Waits for the end and returns the outcomes."""
        out, _ = self._process.communicate(timeout=_ENDS_S)
        found: dict[str, float] = orjson.loads(out)
        return found


@contextmanager
def flooding(plan: Plan) -> Iterator[Flood]:
    """Sends a flood from another process while the body runs; yields when it has begun."""
    command = [sys.executable, "-m", "loadtests.fleet.flood_load", orjson.dumps(asdict(plan)).decode()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own command
    try:
        out: IO[bytes] | None = process.stdout
        if out is None or out.readline().strip() != b"begun":
            raise RuntimeError("the flood did not begin")
        yield Flood(process)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Sends the flood of the plan in the first argument."""
    plan = Plan(**orjson.loads(sys.argv[1]))
    requests, record = arrivals(plan), Record()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    drive_now(plan.url, requests, connections=plan.connections, warmup_s=0.0, record=record)
    sys.stdout.buffer.write(orjson.dumps(outcomes(record, plan.seconds)))


if __name__ == "__main__":
    main()
