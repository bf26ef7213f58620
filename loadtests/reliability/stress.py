"""What the measurements of overload and breaches share: users with histories, answers by second, samples of the guard.

bench_of(name, artifact, out, …)     the bench of a command that writes rows of reliability.json
crowd(bench, url) -> Crowd           many users with stored histories; .arrivals(rate, seconds, seed)
ops_fallback(url) -> dict            GET or PUT /ops/fallback, of a service that was started with OPS
with watched(url) as watch:          samples it while the body runs, and takes actions at given moments
seconds_of(answers, …) -> list       answers of each second by rung and reason
tally(answers, …) -> dict            the same for a whole run
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.common.hdr import Latencies
from loadtests.common.meanwhile import meanwhile
from loadtests.harness.bench import Bench, batches, history, load, recommend_request, warm
from loadtests.load.items import read_items
from loadtests.load.open_loop_driver import Answer, Arrival, drive_now, poisson
from loadtests.load.replay import RECOMMEND

BUDGET_MS = 80.0
MODEL_RUNGS = ("full", "narrow")
RUNGS = (*MODEL_RUNGS, "item_cf", "popular")
OPS = {"GPT4REC_OPS_TOKENS": "load:load"}
# Users do not wait for each other's connections.
CONNECTIONS = 256
USERS, EVENTS_EACH = 400, 20
_CLOSED_WITHIN_S = 300.0


def bench_of(name: str, artifact: Path, out: Path, *, quick: bool) -> Bench:
    """Returns the bench of `python -m loadtests.<name>`.

    Raises:
        typer.BadParameter: If a quick run would overwrite the recorded figures.
    """
    if quick and out == results.RESULTS:
        raise typer.BadParameter(
            "a quick run needs a folder of its own, so that it overwrites no figures", param_hint="--out"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = f"python -m loadtests.{name} --artifact ARTIFACT"
    return Bench(artifact, None, command, Console(), out, quick, results.RELIABILITY.name)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Users with stored histories and states, and the body of each one's /recommend.

    Every user asks for a list of 10 with a beam of 5, within the service's default budget.
    """

    bodies: Sequence[bytes]

    def arrivals(self, rate: float, seconds: float, seed: int) -> list[Arrival]:
        """Returns Poisson arrivals at `rate` a second, of users drawn at random."""
        rng = np.random.default_rng(seed)
        dues = poisson(rng, rate, seconds)
        who = rng.integers(len(self.bodies), size=len(dues))
        return [Arrival(due, RECOMMEND, self.bodies[n]) for due, n in zip(dues.tolist(), who.tolist(), strict=True)]


def crowd(bench: Bench, url: str) -> Crowd:
    """Loads histories of random items.

    Raises:
        LoadError: If the service does not accept them.
    """
    rng = np.random.default_rng(0)
    items = read_items(bench.artifact)
    names = [f"user-{n}" for n in range(bench.some(USERS, 60))]
    length = min(EVENTS_EACH, len(items) // 2)
    events = (one for name in names for one in history(name, rng.choice(items, length, replace=False).tolist()))
    load(bench, url, "histories", list(batches(events)))
    warm(bench, url, names)
    return Crowd([recommend_request(name).body for name in names])


# -- the guard


def ops_fallback(url: str, method: str = "GET", body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Calls /ops/fallback and returns the answer.

    Raises:
        OSError: If the service does not answer.
        RuntimeError: If it refuses the request.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5.0)
    try:
        content = None if body is None else orjson.dumps(body)
        headers = {"Authorization": "Bearer load", "Content-Type": "application/json"}
        connection.request(method, "/ops/fallback", content, headers)
        answer = connection.getresponse()
        said = answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{method} /ops/fallback: {answer.status}")
    found: dict[str, Any] = orjson.loads(said)
    return found


def force(url: str, mode: str) -> None:
    """Forces a mode; "auto" returns the choice to the guard."""
    ops_fallback(url, "PUT", {"mode": mode, "reason": "load test"})


def close_breaker(url: str, users: Crowd, rate: float) -> None:
    """Sends a gentle load until the breaker is closed, so that one run does not affect the figures of the next.

    Raises:
        RuntimeError: If the breaker does not close in time.
    """
    until = time.monotonic() + _CLOSED_WITHIN_S
    while ops_fallback(url)["breaker"] != "closed":
        if time.monotonic() > until:
            raise RuntimeError("the breaker does not close under gentle load")
        drive_now(url, users.arrivals(rate, 1.0, 0), warmup_s=0.0)


@dataclass(slots=True)
class Watch:
    """Samples of the guard, oldest first, and the moments of the actions.

    Times are of `time.perf_counter`; `since` and `changes` return seconds from another moment.
    """

    samples: list[dict[str, Any]] = field(default_factory=list)
    done: list[tuple[float, str]] = field(default_factory=list)

    def since(self, began: float) -> list[dict[str, Any]]:
        """Returns the samples with times in seconds from `began`."""
        return [{**one, "at": round(one["at"] - began, 3)} for one in self.samples]

    def changes(self, began: float) -> list[dict[str, Any]]:
        """Returns each change of the breaker, with the share of the traffic that it gave the model then."""
        found, last = [], "closed"
        for one in self.since(began):
            if one["breaker"] != last:
                last = one["breaker"]
                found.append({key: one[key] for key in ("at", "breaker", "model_share", "cause")})
        return found


@contextmanager
def watched(
    url: str, actions: Sequence[tuple[float, str, Callable[[], None]]] = (), *, every_s: float = 0.5
) -> Iterator[Watch]:
    """Samples /ops/fallback while the body runs, and takes the actions in their order.

    A sample is left out if the service did not answer in time: the measurement is about its answers to others.

    Args:
        url: URL of the service.
        actions: Seconds from now, name and function of each action, in order of time.
        every_s: Seconds between samples.
    """
    watch, left = Watch(), list(actions)
    began = time.perf_counter()

    def run(stop: threading.Event) -> None:
        following = began
        while not stop.is_set():
            while left and time.perf_counter() - began >= left[0][0]:
                _, name, act = left.pop(0)
                act()
                watch.done.append((time.perf_counter(), name))
            if time.perf_counter() >= following:
                following += every_s
                with suppress(OSError, RuntimeError):
                    watch.samples.append({"at": time.perf_counter(), **_sample(ops_fallback(url))})
            due = min(following, began + left[0][0]) if left else following
            stop.wait(max(0.0, due - time.perf_counter()))

    with meanwhile(run):
        yield watch


def _sample(said: Mapping[str, Any]) -> dict[str, Any]:
    budgets = said["budgets"]
    burn = {objective: rates.get("1m") for objective, rates in budgets.get("burn_rate", {}).items()}
    share, cause = budgets.get("model_share"), budgets.get("cause")
    return {"breaker": said["breaker"], "model_share": share, "cause": cause, "burn_1m": burn}


def attempts(url: str) -> Counter[str]:
    """Returns the number of model attempts so far by outcome, from /metrics."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10.0)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    found: Counter[str] = Counter()
    for line in lines:
        if line.startswith("gpt4rec_model_attempts_total{"):
            labels, _, value = line.partition("} ")
            found[labels.partition('outcome="')[2].partition('"')[0]] += round(float(value))
    return found


# -- the answers


def seconds_of(answers: Iterable[Answer], length_s: float, *, step_s: float = 1.0) -> list[dict[str, Any]]:
    """Counts the requests due in each step of a run: answers by rung and reason, late ones and errors."""
    steps: list[list[Answer]] = [[] for _ in range(max(1, round(length_s / step_s)))]
    for answer in answers:
        steps[min(len(steps) - 1, int(answer.due_s / step_s))].append(answer)
    return [
        {
            "rungs": _rungs(part),
            "reasons": _reasons(part),
            "late": sum(not in_time(answer) for answer in part if answer.status == 200),
            "errors": sum(answer.status != 200 for answer in part),
        }
        for part in steps
    ]


def tally(answers: Sequence[Answer], length_s: float) -> dict[str, Any]:
    """Counts the requests of a run by outcome; `within_budget` is in per cent of those sent."""
    good = [answer for answer in answers if answer.status == 200]
    rungs = _rungs(good)
    took = Latencies((answer.took_s or 0.0) * 1e3 for answer in good)
    own = [answer.own_ms for answer in good if answer.own_ms is not None]
    n = max(1, len(answers))
    return {
        "seconds": length_s,
        "requests": len(answers),
        "answered": len(good),
        "errors": dict(Counter(f"{answer.label} {answer.status}" for answer in answers if answer.status != 200)),
        "errors_5xx": sum(isinstance(answer.status, int) and answer.status >= 500 for answer in answers),
        "rungs": rungs,
        "reasons": _reasons(good),
        "latency_ms": took.figures(),
        "own_latency_ms": Latencies(own).figures(),
        "late": sum(not in_time(answer) for answer in good),
        "within_budget": 100.0 * sum(in_time(answer) for answer in good) / n,
        "own_within_budget": 100.0 * sum(ms <= BUDGET_MS for ms in own) / max(1, len(own)),
        "model_rate": sum(rungs.get(rung, 0) for rung in MODEL_RUNGS) / length_s,
    }


def in_time(answer: Answer) -> bool:
    """Returns whether the answer came within the budget, counted from when its request was due."""
    return answer.took_s is not None and answer.took_s * 1e3 <= BUDGET_MS


def _rungs(answers: Iterable[Answer]) -> dict[str, int]:
    counted = Counter(answer.rung for answer in answers if answer.status == 200)
    return {rung: counted[rung] for rung in RUNGS if counted[rung]}


def _reasons(answers: Iterable[Answer]) -> dict[str, int]:
    return dict(sorted(Counter(a.reason for a in answers if a.reason is not None).items()))
