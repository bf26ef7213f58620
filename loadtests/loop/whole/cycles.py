"""The first model, and the cycles: users visit, `gpt4rec loop run` learns from it, and its canary meets users."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from loadtests.loop import criteria
from loadtests.loop.whole.plan import Plan, Progress, turn_of, visits_of
from loadtests.loop.whole.simulated import Simulated
from loadtests.loop.whole.site import Site, ended, run
from loadtests.simulator.past import Click
from loadtests.simulator.visits import make_traffic, send_past
from service.common.atomic_files import write_aside

# Lists are the best that the model knows. A share is drawn, so that the model learns of other items, and other policies
# can be judged.
EXPLORED = 0.3
EXPLORING = {"strategy": "temperature", "temperature": 0.8}
BEST = {"strategy": "beam"}
# Programs are called so, with a number.
BOT = "bot"
_BOT_LISTS = 8
# Clicks come from lists that the champion chose, which favours it: the gate lets a candidate lose more than it usually
# may, and the canary decides. Times vary on a machine that runs everything at once.
_GATE = "--quality-loss 0.15 --latency-times 3 --runs 50 --questions-least 50"
_PAST_ENDS_MS = 120_000
# Exit codes of `gpt4rec loop run`: promoted or too few events, and a candidate that was refused or went back.
_ENDED_WELL = (0, 3)

Tell = Callable[[str], None]


def policies(decoding: dict[str, Any], explored: float = 0.0) -> dict[str, Any]:
    """Returns policies with one segment.

    Args:
        decoding: How its lists are decoded.
        explored: Share of its lists that is drawn instead.
    """
    segment: dict[str, Any] = {"name": "everybody", "decoding": decoding}
    if explored:
        segment["explore"] = {"share": explored, "decoding": EXPLORING}
    return {"segments": [segment], "default": "everybody"}


def first_model(progress: Progress, simulated: Simulated, tell: Tell) -> None:
    """Simulates the past, trains the first model on it, and exports it."""
    plan, folder = progress.plan, progress.folder
    if progress.begin("past", _now_ms()):
        tell("past: users look at random lists")
        clicks = simulated.before(_now_ms() - _PAST_ENDS_MS)
        kept = [(click.user, click.item, click.time_ms) for click in clicks]
        write_aside(folder / "past.json", orjson.dumps(kept))
        progress.end("past", _now_ms(), clicks=len(clicks))
    simulated.load()
    if progress.begin("first model", _now_ms()):
        tell("first model: training and export")
        resume = ["--resume"] if (folder / "run" / "checkpoint.safetensors").exists() else []
        if not (folder / "run" / "metrics.json").exists():
            asked = ["train", "--data", str(folder / "past"), "--out", str(folder / "run")]
            run(folder, *asked, *(resume or _settings(plan)))
        run(folder, "export", "--run", str(folder / "run"), "--out", str(folder / "artifacts"), "--latest")
        progress.end("first model", _now_ms(), version=_version(progress))


def open_service(progress: Progress, simulated: Simulated, site: Site, tell: Tell) -> None:
    """Tells a new service what users did before, how lists are decoded, and who keeps the first model."""
    if not progress.begin("opening", _now_ms()):
        return
    tell("opening: histories, policies and the hold-out")
    clicks = [Click(*row) for row in orjson.loads((progress.folder / "past.json").read_bytes())]
    send_past(site.url, simulated.world, clicks)
    site.ask("PUT", "/ops/policies", policies(BEST, EXPLORED))
    model = progress.parts["first model"]["version"]
    site.ask("PUT", "/ops/holdout", {"share": criteria.WHOLE_HOLDOUT, "model": model})
    progress.end("opening", _now_ms())


def cycle(number: int, progress: Progress, simulated: Simulated, site: Site, tell: Tell) -> None:
    """Does what is left of a cycle, from 1."""
    usual, last = simulated.cycle(number)
    if progress.begin(visits_of(number), _now_ms()):
        simulated.visit(site.url, usual, lambda done, of: tell(f"cycle {number}: {done:,} of {of:,} visits"))
        made = make_traffic(site.url, [f"{BOT}{one}" for one in range(progress.plan.bots)], _BOT_LISTS)
        progress.end(visits_of(number), _now_ms(), made=made)
    if progress.begin(turn_of(number), _now_ms()):
        site.drain()
        tell(f"cycle {number}: gpt4rec loop run")
        code = _turn(number, progress, simulated, site, tell)
        found, below = simulated.visit(site.url, last, lambda *_: None)
        version = site.active()
        progress.end(turn_of(number), _now_ms(), code=code, version=version, after=found, below=below)
        tell(f"cycle {number}: {version} is in service, {'promoted' if code == 0 else 'the candidate was not taken'}")


def _turn(number: int, progress: Progress, simulated: Simulated, site: Site, tell: Tell) -> int:
    """Runs a cycle of the loop, and makes the last visits while its canary runs."""
    plan = progress.plan
    _, last = simulated.cycle(number)
    process = site.loop_run(
        "--increment",
        GPT4REC_LOOP_SINK="false",
        GPT4REC_LOOP_EVENTS_MIN="1",
        GPT4REC_LOOP_POLL_S="0.5",
        GPT4REC_LOOP_CANARY_STEPS="1",
        # Half of what an arm may expect, so that chance does not leave the canary waiting.
        GPT4REC_LOOP_CANARY_LISTS=str(max(1, int(plan.users * (1.0 - criteria.WHOLE_HOLDOUT) / 8.0))),
        # The trial asks what earns clicks; a canary of so few users may have none.
        GPT4REC_LOOP_CANARY_CLICKED="0",
        GPT4REC_LOOP_INCREMENT_ARGS=f"--ewc 0.1 --set max_epochs={max(1, plan.epochs // 2)}",
        GPT4REC_LOOP_GATE_ARGS=_GATE,
    )
    try:
        while process.poll() is None:
            if site.running():
                simulated.visit(
                    site.url, last, lambda done, of: tell(f"cycle {number}: {done:,} of {of:,} visits in the canary")
                )
            time.sleep(0.1)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return ended(progress.folder, process, _ENDED_WELL)


def _settings(plan: Plan) -> list[str]:
    given = {"size": "tiny", "split": "time", "valid_share": 0.08, "test_share": 0.08, "repeats": "false",
             "max_epochs": plan.epochs, "seed": plan.seed}  # fmt: skip
    return [part for name, value in given.items() for part in ("--set", f"{name}={value}")]


def _version(progress: Progress) -> str:
    """Returns the version that was exported."""
    return (progress.folder / "artifacts" / "latest").read_text("utf-8").strip()


def _now_ms() -> int:
    return int(time.time() * 1000)
