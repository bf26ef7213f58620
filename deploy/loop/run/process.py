"""The process of `gpt4rec loop run`: locks, metrics, signals, and the exit code."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from deploy.loop.run.cycle import AttemptError
from deploy.loop.run.gpt4rec import Processes
from deploy.loop.run.journal import Journal, Kind
from deploy.loop.run.locks import commands, sole
from deploy.loop.run.loop import Loop
from deploy.loop.run.preparing import base_of, run_of
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.service import Service
from deploy.loop.run.telling import ended, newest, plan
from deploy.loop.run.world import World, report_of
from service.access import credentials
from service.api.listeners import bind
from service.common import logs
from service.intake.side_door import open_side_door
from service.metrics.loop_metrics import LoopMetrics
from service.process.process_end import end_within
from service.settings.loop_settings import LoopSettings
from service.settings.service_settings import Settings

log = logs.get(__name__)

# Exit codes of one cycle: promoted or nothing to do, a step failed, the old model stays, stopped before its end.
DONE, FAILED, KEPT, STOPPED = 0, 1, 3, 5
_GOOD = ("promoted", "skipped")

# Longer than a command has to end, and the side door.
_STOP_S = 25.0

Say = Callable[[str], None]


def run(settings: Settings, own: LoopSettings, url: str, token: str, say: Say, *, once: bool, kind: Kind | None) -> int:
    """Runs cycles on their schedule until a signal, or one cycle.

    Args:
        settings: Of the service: who may read /metrics.
        own: Of the loop.
        url: URL of the service.
        token: An ops token.
        say: Called with what people should read.
        once: Whether one cycle is done.
        kind: Of that cycle; None: what is due.

    Returns:
        The exit code.

    Raises:
        RunError: Another loop has the work folder, or the journal cannot be read.
        StartupError: The port is taken.
    """
    with sole(Path(own.loop_work)):
        return asyncio.run(_run(settings, own, url, token, say, once=once, kind=kind))


async def _run(
    settings: Settings, own: LoopSettings, url: str, token: str, say: Say, *, once: bool, kind: Kind | None
) -> int:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = LoopMetrics(registry)
    async with AsyncExitStack() as stack:
        shared = stack.enter_context(commands(Path(own.loop_work)))
        service = Service(url, token)
        stack.push_async_callback(service.close)
        journal, runner = Journal(Path(own.loop_work)), Processes(shared.number)
        world = World(own, journal, runner, service, time.time, asyncio.sleep, metrics.enter)
        schedule = Schedule.of(own.loop_increment_minutes, own.loop_full_at)
        loop = Loop(world, schedule, metrics)
        loop.measure()
        port = await _side_door(stack, settings, own, loop, registry)
        say(f"gpt4rec loop works in {own.loop_work}; metrics on http://{own.loop_metrics_host}:{port}/metrics")

        async def work() -> int:
            await loop.wait_for_commands(shared)
            if not once:
                await loop.run()
            try:
                cycle = await loop.once(kind)
            except AttemptError as error:
                say(f"{error}\nThe next start tries the step again.")
                return FAILED
            say(ended(cycle))
            return DONE if cycle.outcome in _GOOD else FAILED if cycle.outcome == "failed" else KEPT

        return await _until_signal(work(), STOPPED if once else DONE)


async def _until_signal(work: Any, stopped: int) -> int:
    """Returns what the work returns, or `stopped` after SIGTERM or SIGINT, which end the step under way."""
    task = asyncio.ensure_future(work)

    def stop() -> None:
        if not task.cancelling():
            end_within(_STOP_S)
            task.cancel()

    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop)
    try:
        code: int = await task
        return code
    except asyncio.CancelledError:
        log.info("stopping", detail="the next start goes on with the step that was left")
        return stopped


async def _side_door(
    stack: AsyncExitStack, settings: Settings, own: LoopSettings, loop: Loop, registry: CollectorRegistry
) -> int:
    sock = stack.enter_context(bind(own.loop_metrics_host, own.loop_metrics_port))

    def checks() -> Mapping[str, bool]:
        return {"alive": True, "working": loop.failing is None}

    def more() -> Mapping[str, Any]:
        return {"work": own.loop_work, "failing": loop.failing}

    await open_side_door(
        stack, sock, credentials.access(settings), lambda: generate_latest(registry), checks, more
    )  # fmt: skip
    port: int = sock.getsockname()[1]
    return port


def kind_of(*, full: bool, increment: bool) -> Kind | None:
    """Returns the kind of cycle that the flags name; None if they name none."""
    return "full" if full else "increment" if increment else None


def dry_run(own: LoopSettings, url: str, token: str, kind: Kind | None) -> list[str]:
    """Returns what the next cycle would do, in sentences; only the log is read, and the service asked.

    Raises:
        RunError: The service, the journal or the log cannot be read.
    """
    return asyncio.run(_dry_run(own, url, token, kind))


async def _dry_run(own: LoopSettings, url: str, token: str, kind: Kind | None) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="gpt4rec-loop-") as aside, commands(Path(aside)) as shared:
        service = Service(url, token)
        journal, runner = Journal(Path(own.loop_work)), Processes(shared.number)
        world = World(own, journal, runner, service, time.time, asyncio.sleep)
        try:
            cycles = journal.cycles()
            due = Schedule.of(own.loop_increment_minutes, own.loop_full_at).due(cycles, time.time())
            chosen: Kind = kind or (due[0] if due else "increment")
            cycle = newest(cycles) or journal.begun(chosen, time.time(), None, cycles)
            active = str((await service.models())["active"])
            base = base_of(world, run_of(world, cycle.champion or active))
            arguments = ["data", "from-log", "--log", own.loop_log, "--data", base, "--json"]
            counted = report_of(await runner.run(arguments, Path(aside) / "messages"))
        finally:
            await service.close()
    head = f"The open cycle {cycle.id} would go on:" if cycle.steps else f"A new {cycle.kind} {cycle.id} would:"
    said = [head, *(f"  - {line}" for line in plan(world, cycle, cycle.champion or active, counted["new"]))]
    return said if due is not None or cycle.steps else [*said, "Nothing is due now; --once does it all the same."]
