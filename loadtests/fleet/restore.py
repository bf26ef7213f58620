"""The restore drill: a backup of a running Redis, its loss, a restore, and what was lost.

`python -m loadtests.fleet.restore --artifact DIR` writes results/fleet_restore.json. The steps are those of
docs/runbook.md. Events that were acknowledged before the copy began must all be there afterwards; those after it are
lost, and are counted.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.chaos.load import RECOMMEND, Load
from loadtests.common import results
from loadtests.fleet.failover_scene import SETTINGS, accepted, missing_events, read
from loadtests.harness import redis_programs, served_process
from loadtests.harness.redis_cluster import RedisCluster
from loadtests.harness.valkey import TcpValkey
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command

NAME = "fleet_restore"
COMMAND = "python -m loadtests.fleet.restore --artifact ARTIFACT"
_WITHIN_S = 40.0
_HOLD_S = 3.0
DRILLS = (
    "single server, copy of its append-only files",
    "single server, RDB",
    "cluster, append-only files of each primary",
)


class DrillError(RuntimeError):
    """A step of the drill did not work."""


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    program: Annotated[
        str, typer.Option(help="Server program, such as valkey-9 or redis-7.0.")
    ] = redis_programs.DEFAULT,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
) -> None:
    """Backs a Redis up under load, destroys it, restores it, and counts what is missing."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console, drills = Console(), dict[str, Any]()
    for name in DRILLS:
        console.print(f"[bold]{name}[/bold]")
        with tempfile.TemporaryDirectory(prefix="gpt4rec-restore-") as folder:
            drills[name] = drilled(name, artifact, Path(folder), redis_programs.program(program))
        console.print(f"  {drills[name]}", highlight=False, markup=False, soft_wrap=True)
    results.save(NAME, {"drills": drills}, command=COMMAND, folder=out)
    if lost := [name for name, one in drills.items() if one["lost_before"]]:
        typer.echo(f"restore: events from before the copy are gone: {', '.join(lost)}", err=True)
        raise typer.Exit(1)


def drilled(name: str, artifact: Path, folder: Path, program: redis_programs.Program) -> dict[str, Any]:
    """Does one drill; returns what was lost.

    Raises:
        DrillError: A step did not work.
    """
    with ExitStack() as stack:
        servers, url, well = _started(name, folder, program, stack)
        service = stack.enter_context(served_process.serve(artifact, "--redis", url, **SETTINGS))
        with Load([service.url], list(Artifact.open(artifact).catalogue.item_ids)) as load:
            _until(lambda: accepted(load, 0.0) and read(load, 0.0), "the service is well before it")
            _hold(_HOLD_S)
            began = time.perf_counter()
            copies = [_copied(server, folder / f"copy-{n}", rdb="RDB" in name) for n, server in enumerate(servers)]
            copied = time.perf_counter()
            keys = sum(int(server.ask(("DBSIZE",))) for server in servers)
            _hold(_HOLD_S)
            for server in servers:
                server.kill9()
                shutil.rmtree(server.folder)
            lost_at = time.perf_counter()
            for server, copy in zip(servers, copies, strict=True):
                _restored(server, copy, rdb="RDB" in name)
            _until(well, "the servers serve again")
            _until(lambda: accepted(load, lost_at) and read(load, lost_at), "the service is well again")
            back = time.perf_counter()
            _hold(_HOLD_S / 3)
        missing, _ = missing_events(service.url, load)
        return _entry(load, missing, began, copied, lost_at, back, keys)


def _started(
    name: str, folder: Path, program: redis_programs.Program, stack: ExitStack
) -> tuple[Sequence[TcpValkey], str, Callable[[], bool]]:
    """Starts the servers; returns those that are copied, the URL, and whether they are well."""
    if name.startswith("cluster"):
        cluster = stack.enter_context(RedisCluster(folder, replicas=0, program=program))
        return cluster.servers, cluster.url, cluster.well
    server = stack.enter_context(TcpValkey(folder / "redis", fsync="everysec", program=program))
    return [server], server.url, lambda: server.say("PING") == b"+PONG"


def _copied(server: TcpValkey, copy: Path, *, rdb: bool) -> Path:
    """Copies the data of a running server."""
    if rdb:
        before = server.ask(("LASTSAVE",))
        _until(lambda: time.time() > before + 1, "another second")  # the time of a save is told in whole seconds
        server.ask(("BGSAVE",))
        _until(lambda: server.ask(("LASTSAVE",)) > before, "the RDB is written")
        copy.mkdir()
        shutil.copyfile(server.folder / "dump.rdb", copy / "dump.rdb")
        return copy
    # A rewrite would remove files during the copy.
    server.ask(("CONFIG", "SET", "auto-aof-rewrite-percentage", 0))
    _until(lambda: "aof_rewrite_in_progress:0" in server.ask(("INFO", "persistence")), "no rewrite of the file")
    server.copy(copy)
    server.ask(("CONFIG", "SET", "auto-aof-rewrite-percentage", 100))
    return copy


def _restored(server: TcpValkey, copy: Path, *, rdb: bool) -> None:
    """Starts a server on a copy.

    An RDB is read only while there is no append-only file: it is loaded without one, which is then switched on and so
    written anew.
    """
    shutil.copytree(copy, server.folder)
    if not rdb:
        server.start()
        return
    server.start(appendonly="no")
    server.ask(("CONFIG", "SET", "appendonly", "yes"))
    _until(
        lambda: "aof_rewrite_in_progress:0" in server.ask(("INFO", "persistence")), "the append-only file is written"
    )


def _entry(
    load: Load,
    missing: Sequence[tuple[str, str, float]],
    began: float,
    copied: float,
    lost_at: float,
    back: float,
    keys: int,
) -> dict[str, Any]:
    times = [when for events in load.acknowledged.values() for _, when in events.values()]
    lists = [one for one in load.seen if one.path == RECOMMEND]
    return {
        "before": sum(when < began for when in times),
        "lost_before": sum(when < began for _, _, when in missing),
        "after": sum(copied < when < lost_at for when in times),
        "lost_after": sum(when >= began for _, _, when in missing), "keys": keys,
        "copied_s": round(copied - began, 3), "back_s": round(back - lost_at, 1),
        "5xx": sum(isinstance(one.status, int) and one.status >= HTTPStatus.INTERNAL_SERVER_ERROR for one in lists),
    }  # fmt: skip


def _hold(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


def _until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _WITHIN_S
    while not condition():
        if time.monotonic() > until:
            raise DrillError(f"this did not happen within {_WITHIN_S:g} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    run_command(main)
