"""The replay as a Locust scenario, for your own environments.

    LOAD_DATA=DATA locust -f loadtests/load/locustfile.py --host http://service:8000 --users 200 --spawn-rate 20

Every Locust user runs one session of the data set after another (`loadtests.load.replay`): the earlier events of its
user are sent first, then the steps of the session, with pauses of LOAD_PAUSE_S seconds on average. Locust is a closed
loop: a slow service gets fewer requests, so the latencies look better than they are; `make load` measures in an open
loop. Lists of a rung below `full` are counted under a name of their own.

    LOAD_DATA        data set folder of `gpt4rec data`
    LOAD_PAUSE_S     mean pause of a user between two steps, 1
    LOAD_SEED        which stream of sessions, 0
    LOAD_API_KEY     API key, if the service requires one
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task  # type: ignore[import-not-found, unused-ignore]

from loadtests.load.replay import EVENTS, Replay, read

PAUSE_S = float(os.environ.get("LOAD_PAUSE_S", "1"))
SEED = int(os.environ.get("LOAD_SEED", "0"))
_HEADERS = {"Content-Type": "application/json"}
if key := os.environ.get("LOAD_API_KEY"):
    _HEADERS["X-API-Key"] = key


@events.init.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def open_log(environment: Any, **_: Any) -> None:
    """Reads the log once for all users of this process. A worker of a distributed run has a stream of its own."""
    folder = os.environ.get("LOAD_DATA")
    if folder is None:
        raise SystemExit("LOAD_DATA must name the data set folder to replay")
    environment.replay = Replay(read(Path(folder)), seed=SEED, prefix=f"locust-{SEED}-{os.getpid()}-")


class Visitor(FastHttpUser):  # type: ignore[misc, unused-ignore]
    """Runs sessions of the log, one after another."""

    def wait_time(self) -> float:
        """Returns an exponentially distributed pause, so that users do not act in step."""
        return random.expovariate(1.0 / PAUSE_S) if PAUSE_S > 0 else 0.0

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def session(self) -> None:
        """Runs the next session of the log."""
        earlier, steps = self.environment.replay.session()
        for body in earlier:
            self._send(EVENTS, body, f"{EVENTS} (earlier)")
        for path, body in steps:
            self._send(path, body, path)
            self.wait()

    def _send(self, path: str, body: bytes, name: str) -> None:
        with self.client.post(path, data=body, headers=_HEADERS, name=name, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}")
                return
            rung = (answer.json() or {}).get("rung", "full")
            if rung != "full":
                answer.request_meta["name"] = f"{name} ({rung})"
