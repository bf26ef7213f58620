"""How long a change of the mode takes to reach every replica: `python -m loadtests.reliability.toggle --artifact DIR`.

Two services share a Valkey that belongs to neither, under a light load. A trial is a PUT /ops/fallback on one of them,
at random, until the lists of both follow the new mode. In a share of the trials the server first revokes the other
replica's right to subscribe: its subscription is cut, and only the poll can find the change. After the trials, both
services are killed and restarted; Redis is frozen; Redis is killed, the mode changed on both sides meanwhile, and Redis
restarted. Writes rows of `reliability.json`, and `toggle.json`.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import redis
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.harness.bench import Bench
from loadtests.reliability.stress import ops_fallback
from loadtests.reliability.toggle_replicas import AFTERWARDS, GIVE_UP_S, RATE, USERS, Replica, Setting
from service.cli.outermost import run_command
from service.store.redis.embedded_valkey import EmbeddedValkey

LIMIT_S = 1.0
TRIALS, LOST_SHARE = 100, 0.3
_BACK_S = 20.0


def run(bench: Bench, trials: int) -> None:
    """Runs the trials, the restart and both failures of Redis on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-toggle-") as folder, EmbeddedValkey(Path(folder) / "db") as server:
        setting = Setting(bench, Path(folder), server)
        with setting.replicas(setting.named()) as replicas:
            with setting.loaded(replicas):
                found = _trials(setting, replicas, trials)
            _report_trials(bench, found)
            replicas[0].force("fallback", "before the restart")
            _both(replicas, "fallback")
            for one in replicas:
                one.kill9()
        with setting.replicas([server.url] * len(USERS), forget=True) as replicas:
            restart = _kept(bench, replicas)
            frozen = _frozen(setting, replicas)
            away = _away(setting, replicas)
    bench.save(
        "toggle",
        {"limit_s": LIMIT_S, "rate": RATE, "trials": found, "restart": restart, "frozen": frozen, "away": away},
    )


def _trials(setting: Setting, replicas: Sequence[Replica], trials: int) -> list[dict[str, Any]]:
    rng = random.Random(0)  # noqa: S311 - a choice, repeatable
    found: list[dict[str, Any]] = []
    with (
        redis.Redis.from_url(setting.server.url) as client,
        ThreadPoolExecutor(len(replicas)) as threads,
        setting.bench.progress("trials", trials) as advance,
    ):
        for n in range(trials):
            mode = ("fallback", rng.choice(("auto", "model")))[n % 2]
            lost = rng.random() < LOST_SHARE
            _until(lambda: len(client.client_list(_type="pubsub")) == len(replicas), "both subscribe")
            time.sleep(rng.uniform(0.0, 0.5))  # anywhere between two polls
            via = rng.randrange(len(replicas))
            others = [name for name in USERS if name != USERS[via]] if lost else []
            for name in others:
                client.execute_command("ACL", "SETUSER", name, "resetchannels")
            began = time.perf_counter()
            watched = [threads.submit(one.reached, mode, began) for one in replicas]
            said = replicas[via].force(mode, f"trial {n}")
            put_s = time.perf_counter() - began
            reached = [one.result() for one in watched]
            for name in others:
                client.execute_command("ACL", "SETUSER", name, "allchannels")
            found.append(
                {
                    "mode": mode, "message": "lost" if lost else "sent", "via": via, "put_s": put_s,
                    "shared": said["shared"], "reached_s": [took for took, _ in reached],
                    "rungs": [one.rung for one in replicas],
                    "old_afterwards": sum(old for _, old in reached),
                }
            )  # fmt: skip
            advance()
    return found


def _report_trials(bench: Bench, found: Sequence[dict[str, Any]]) -> None:
    took = {kind: [_took(one) for one in found if one["message"] == kind] for kind in ("sent", "lost")}
    every = [*took["sent"], *took["lost"]]
    within = sum(seconds <= LIMIT_S for seconds in every)
    bench.row("3 toggle reaches both replicas", within, f"of {len(every)} trials within 1 s", at_least=len(every))
    bench.row("3 toggle p50", statistics.median(every), "s", at_most=LIMIT_S)
    bench.row("3 toggle max", max(every), "s", at_most=LIMIT_S)
    for kind, text in (("sent", "by the message"), ("lost", "message lost, by the poll")):
        if took[kind]:
            bench.row(f"3 toggle max, {text}", max(took[kind]), f"s in {len(took[kind])} trials", at_most=LIMIT_S)
    old = sum(one["old_afterwards"] for one in found)
    bench.row("3 lists by the old mode after the new one", old, f"of {2 * AFTERWARDS * len(found):,}", at_most=0)


def _took(trial: dict[str, Any]) -> float:
    return max(GIVE_UP_S if took is None else took for took in trial["reached_s"])


def _kept(bench: Bench, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Checks the first list of each replica after the restart; the second one knows only what Redis has."""
    first = [one.follows("fallback") for one in replicas]
    answers = [ops_fallback(one.url) for one in replicas]
    kept = all(first) and all(one["reason"] == "before the restart" and one["actor"] == "load" for one in answers)
    bench.row("3 restart keeps the mode", int(kept), "of 1", at_least=1)
    return {"first_lists_forced": first, "said": [_mode(one) for one in answers]}


def _frozen(setting: Setting, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Changes the mode while Redis accepts everything and answers nothing."""
    pid = setting.server.pid
    assert pid is not None  # noqa: S101 - nothing has ended it
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        said = replicas[0].force("auto", "frozen")
        put_s = time.perf_counter() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    thawed = time.perf_counter()
    _both(replicas, "auto")
    agreed_s = time.perf_counter() - thawed
    # The write time-out is 0.25 s; the rest is HTTP and the scheduler.
    setting.bench.row("3 change while Redis is frozen is answered", put_s, "s", at_most=0.5)
    return {"put_s": put_s, "shared": said["shared"], "agreed_s": agreed_s}


def _away(setting: Setting, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Changes the mode on both sides while Redis is down: the later change wins, and both are audited."""
    replicas[0].force("auto", "before the outage")
    _both(replicas, "auto")
    pid = setting.server.pid
    assert pid is not None  # noqa: S101 - nothing has ended it
    os.kill(pid, signal.SIGKILL)
    said = []
    for one, mode, reason in ((replicas[1], "model", "outage, first"), (replicas[0], "fallback", "outage, last")):
        said.append(one.force(mode, reason))
        time.sleep(0.2)  # clocks agree to a part of a round trip
    apart = replicas[0].follows("fallback") and not replicas[1].follows("fallback")
    setting.server.restart()
    began = time.perf_counter()
    _both(replicas, "fallback")
    _until(lambda: all(ops_fallback(one.url)["shared"] for one in replicas), "both share the mode")
    agreed_s = time.perf_counter() - began
    modes = [_mode(ops_fallback(one.url)) for one in replicas]
    reasons = [[entry["reason"] for entry in _audit(one.url)] for one in replicas]
    audited = all({"outage, first", "outage, last"} <= set(found) for found in reasons)
    local = apart and not any(one["shared"] for one in said)
    bench = setting.bench
    bench.row("3 change made while Redis was away holds locally, and says so", int(local), "of 1", at_least=1)
    agreed = modes[0] == modes[1] and modes[0]["reason"] == "outage, last"
    bench.row("3 change made while Redis was away is reconciled", int(agreed and audited), "of 1", at_least=1)
    bench.row("3 replicas agree after Redis is back", agreed_s, "s")
    return {"said": [_mode(one) for one in said], "agreed_s": agreed_s, "modes": modes, "audit": reasons}


def _mode(said: dict[str, Any]) -> dict[str, Any]:
    return {key: said[key] for key in ("mode", "reason", "actor", "version", "shared")}


def _audit(url: str) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5.0)
    try:
        connection.request("GET", "/ops/audit?limit=20", headers={"Authorization": "Bearer load"})
        entries: list[dict[str, Any]] = orjson.loads(connection.getresponse().read())["entries"]
    finally:
        connection.close()
    return entries


def _both(replicas: Sequence[Replica], mode: str) -> None:
    _until(lambda: all(one.follows(mode) for one in replicas), f"both go by {mode}")


def _until(holds: Callable[[], bool], what: str) -> None:
    """Waits until the condition holds. Raises RuntimeError if it does not in time."""
    until = time.monotonic() + _BACK_S
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(f"not in {_BACK_S:.0f} s: {what}")
        time.sleep(0.005)


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="Fewer trials, to try the command; records no figures.")] = False,
    trials: Annotated[int, typer.Option(min=2, help="Changes of the mode.")] = TRIALS,
) -> None:
    """Changes the mode of two services many times, then with Redis frozen and down."""
    if quick and out == results.RESULTS:
        raise typer.BadParameter(
            "a quick run needs a folder of its own, so that it overwrites no figures", param_hint="--out"
        )
    command = "python -m loadtests.reliability.toggle --artifact ARTIFACT"
    bench = Bench(artifact, None, command, Console(), out, quick, results.RELIABILITY.name)
    run(bench, bench.some(trials, min(trials, 12)))


if __name__ == "__main__":
    run_command(main)
