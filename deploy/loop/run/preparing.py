"""The steps before anybody sees the candidate. Each may be repeated: what is there whole is not made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from deploy.loop.run.journal import Cycle
from deploy.loop.run.world import EndedError, StepError, World, arguments, report_of, require
from model.errors import RunError
from service.artifact.manifest import MANIFEST
from service.common import logs
from service.common.atomic_files import write_aside

log = logs.get(__name__)

# Settings of the first run, which full trainings have.
FULL_CONFIG = "full-config.json"


async def begin(world: World, _: Cycle) -> dict[str, Any]:
    """Notes which model is in service, and which run it was exported from: the cycle goes on from these.

    Raises:
        StepError: Nobody knows the run.
        ServiceAwayError: The service cannot be asked.
    """
    version = str((await world.service.models())["active"])
    run = run_of(world, version)
    first, copy = world.settings.loop_run, world.journal.work / FULL_CONFIG
    if first and not copy.exists():
        write_aside(copy, _read(Path(first) / "config.json"))
    return {"version": version, "run": str(run)}


async def sink(world: World, cycle: Cycle) -> dict[str, Any]:
    """Writes what the streams hold to the log."""
    if not world.settings.loop_sink:
        return {"done_by": "a sink that runs by itself"}
    minutes = world.settings.loop_sink_minutes
    done = await world.command(
        cycle, "sink", ["loop", "sink", "--once", "--log", world.settings.loop_log, "--metrics-port", "0"],
        timeout_s=minutes * 60.0,
    )  # fmt: skip
    require(done)
    if done.code is None:
        log.warning(
            "sink_not_finished", cycle=cycle.id,
            detail=f"it was stopped after {minutes:g} minutes, and the cycle goes on with the log as it is; set "
            "GPT4REC_LOOP_SINK=false where another sink reads these streams all the time",
        )  # fmt: skip
    return {"finished": done.code == 0}


async def data(world: World, cycle: Cycle) -> dict[str, Any]:
    """Adds what came to the data of the champion.

    Raises:
        EndedError: Too little came.
    """
    base = base_of(world, Path(_run(cycle)))
    folder = world.journal.folder(cycle) / "data"
    done = await world.command(
        cycle, "data",
        ["data", "from-log", "--log", world.settings.loop_log, "--data", base, "--out", str(folder), "--json"],
    )  # fmt: skip
    found = report_of(done)
    least = max(world.settings.loop_events_min, 1)
    came = found["new"] + (_since_full(world) if cycle.kind == "full" else 0)
    if came < least:
        raise EndedError("skipped", f"{came:,} new events; a cycle needs {least:,}")
    return {"path": str(folder), "base": base, **{name: found[name] for name in found if name != "path"}}


async def train(world: World, cycle: Cycle) -> dict[str, Any]:
    """Goes on from the run of the champion, or trains everything anew. A training that was cut off is resumed."""
    folder = world.journal.folder(cycle) / "run"
    if not (folder / "metrics.json").exists():
        failed = cycle.attempts > 0 and cycle.brought("train", "resumed")
        resume = any((folder / f"checkpoint.{end}").exists() for end in ("safetensors", "index.json")) and not failed
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)  # it holds no checkpoint, or one that could not be resumed
        cycle.steps["train"]["resumed"] = resume
        world.journal.save(cycle)
        asked = ["train", "--data", str(cycle.brought("data", "path")), "--out", str(folder)]
        asked += _increment(world, cycle) if cycle.kind == "increment" else _full(world)
        require(await world.command(cycle, "train", [*asked, *(["--resume"] if resume else [])]))
    if not (folder / "metrics.json").exists():
        raise StepError("the training ended without metrics.json", where=str(folder))
    return {"run": str(folder)}


async def export(world: World, cycle: Cycle) -> dict[str, Any]:
    """Exports the candidate into the folder of the cycle, where no service looks, because the gate reads artefacts."""
    folder = world.journal.folder(cycle) / "artifact"
    asked = ["export", "--run", str(cycle.brought("train", "run")), "--out", str(folder), "--json"]
    shutil.rmtree(folder, ignore_errors=True)
    done = await world.command(
        cycle, "export", [*asked, *arguments(world.settings.loop_export_args, "loop_export_args")]
    )  # fmt: skip
    artifact = Path(report_of(done)["artifact"])
    if artifact.name == cycle.champion:
        raise EndedError("skipped", f"the new model is the one in service, {artifact.name}")
    return {"version": artifact.name, "path": str(artifact)}


async def gate(world: World, cycle: Cycle) -> dict[str, Any]:
    """Compares the candidate with the champion on the newest events.

    Raises:
        EndedError: It is refused.
    """
    folder, champion = world.journal.folder(cycle), world.artifacts / str(cycle.champion)
    verdict, report = folder / "gate.json", folder / "gate.md"
    verdict.unlink(missing_ok=True)  # one of an attempt before
    run = Path(cycle.brought("train", "run"))
    done = await world.command(
        cycle, "gate",
        ["gate", "--candidate", cycle.brought("export", "path"), "--champion", str(champion),
         "--data", base_of(world, run), "--report", str(report),
         *arguments(world.settings.loop_gate_args, "loop_gate_args"), "--json", str(verdict)],
    )  # fmt: skip
    if not verdict.exists():
        require(done)
        raise StepError(f"`{done.command}` wrote no verdict", where=str(done.messages))
    found = _object(verdict)
    if not found["passed"]:
        raise EndedError("refused", f"the gate refuses {cycle.candidate}: {'; '.join(found['faults'])} ({report})")
    return {"report": str(report)}


def _since_full(world: World) -> int:
    """Returns how many events increments have learned from since the last full training."""
    came = 0
    for cycle in reversed(world.journal.cycles()):
        if cycle.outcome == "promoted":
            if cycle.kind == "full":
                break
            came += int(cycle.brought("data", "new") or 0)
    return came


def run_of(world: World, version: str) -> Path:
    """Returns the training run that a version was exported from.

    Raises:
        StepError: No cycle made the version, and the run of the settings did not either.
    """
    for cycle in reversed(world.journal.cycles()):
        if cycle.candidate == version and (made := cycle.brought("train", "run")):
            return Path(made)
    first = world.settings.loop_run
    fix = "name the run that it was exported from: --run RUN (GPT4REC_LOOP_RUN)"
    if not first:
        raise StepError(
            f"the service serves {version}, which no cycle of this journal made", where=str(world.journal.work), fix=fix
        )
    run, manifest = _object(Path(first) / "run.json"), _object(world.artifacts / version / MANIFEST)
    if (manifest.get("data") or {}).get("fingerprint") != run["data"]["fingerprint"]:
        raise StepError(
            f"the service serves {version}, which was not exported from this run: their data differ",
            where=f"{first} and {world.artifacts / version}",
            fix=fix,
        )
    return Path(first)


def base_of(world: World, run: Path) -> str:
    """Returns the data set that a run was trained on."""
    if world.settings.loop_data and run == Path(world.settings.loop_run):
        return world.settings.loop_data
    return str(_object(run / "run.json")["data"]["path"])


def _run(cycle: Cycle) -> str:
    return str(cycle.brought("begin", "run"))


def _increment(world: World, cycle: Cycle) -> list[str]:
    return ["--init", _run(cycle), *arguments(world.settings.loop_increment_args, "loop_increment_args")]


def _full(world: World) -> list[str]:
    given = arguments(world.settings.loop_full_args, "loop_full_args")
    config = world.journal.work / FULL_CONFIG
    if any(one == "--config" or one.startswith("--config=") for one in given) or not config.exists():
        return given
    return ["--config", str(config), *given]


def _object(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a file. Raises StepError if there is none."""
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise StepError(f"the file is damaged: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise StepError("the file holds no JSON object", where=str(path))
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
