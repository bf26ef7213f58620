"""The replay as a Locust scenario, for environments of one's own:

    LOAD_DATA=DATA locust -f loadtests/load/locustfile.py --host http://service:8000 --users 200 --spawn-rate 20

Every Locust user runs one session of the data set after another (`loadtests.load.replay`): what its user did earlier is
sent first, then the session's steps with a pause of LOAD_PAUSE_S seconds on average between them. Locust is a closed
loop: a slow service is asked less often, so its latencies flatter; `make load` measures in an open one. Lists of a rung
below `full` are counted under their own name.

    LOAD_DATA        data set folder of `gpt4rec data`
    LOAD_PAUSE_S     mean pause of a user between two steps, 1
    LOAD_SEED        which stream of sessions, 0
    LOAD_API_KEY     where the service asks for one
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
        raise SystemExit("LOAD_DATA names the data set folder that is replayed")
    environment.replay = Replay(read(Path(folder)), seed=SEED, prefix=f"locust-{SEED}-{os.getpid()}-")


class Visitor(FastHttpUser):  # type: ignore[misc, unused-ignore]
    """Runs sessions of the log, one after another."""

    # An exponential pause, so that users do not march in step.
    def wait_time(self) -> float:
        return random.expovariate(1.0 / PAUSE_S) if PAUSE_S > 0 else 0.0

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def session(self) -> None:
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
