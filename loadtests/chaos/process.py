"""Faults of the service process and of its artefact."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import orjson

from export.publish import seal
from loadtests.chaos.scene import SETTINGS, Fault, Scene
from loadtests.harness import served_process
from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.manifest import FILES, FORMAT_VERSION, MANIFEST
from service.artifact.scorers.signal_files import POPULARITY, signal_file

_DOWN_S, _HOLD_S, _EXIT_S = 1.0, 5.0, 30.0
# A request that was due before the fault has its answer by then.
_IN_FLIGHT_S = 0.2
# A service that has just started has read nobody's history yet.
_COLD = frozenset({"state_stale", "state_unavailable", "deadline", "overload"})
_GONE = tuple(
    f"{path} {how}"
    for path in ("/recommend", "/events")
    for how in ("refused", "cut off", "ConnectionResetError", "BrokenPipeError")
)
_REFUSED = ("/recommend refused", "/events refused")


class Restartable:
    """`gpt4rec serve` with a port and data that survive restarts."""

    def __init__(self, artifact: Path, folder: Path) -> None:
        self.port = served_process.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._stack = ExitStack()
        self._log = folder / "log"
        self._command = [
            sys.executable, "-m", "service.cli", "serve", "--artifact", str(artifact.resolve()), "--redis", "embedded",
            "--data-dir", str(folder / "data"), "--port", str(self.port), "--log-level", "warning",
        ]  # fmt: skip

    def __enter__(self) -> Restartable:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """A process that is ready. Raises NotReadyError."""
        self._stack.close()
        started = served_process.started(self._command, "/readyz", self._log, **SETTINGS)
        self.process, _, _ = self._stack.enter_context(started)


def killed(scene: Scene) -> None:
    """Kills the process and starts it again."""
    service = scene.enter(Restartable(scene.artifact, scene.folder))
    with scene.load(service.url), scene.fault(reasons=_COLD, errors=_GONE):
        time.sleep(_IN_FLIGHT_S)
        for _ in range(3):
            service.process.kill()
            service.process.wait()
            scene.hold(_DOWN_S)
            service.start()
            scene.hold(_DOWN_S)


def stopped(scene: Scene) -> None:
    """Stops the process: refused requests were not accepted, other lost ones were cut off."""
    service = scene.enter(Restartable(scene.artifact, scene.folder))
    with scene.load(service.url), scene.fault(reasons=_COLD, refused=True, errors=_REFUSED):
        for _ in range(3):
            service.process.terminate()
            scene.promise(service.process.wait(_EXIT_S) == 0, "it did not end with status 0")
            service.start()
            scene.hold(_DOWN_S)


# -- the artefact


def damaged(scene: Scene, damage: Callable[[Path], Sequence[str]]) -> None:
    """Damages the artefact in place under a running service, then starts another service on it."""
    folder = scene.folder / scene.artifact.resolve().name
    shutil.copytree(scene.artifact, folder)
    with scene.load(scene.enter(served_process.serve(folder, **SETTINGS)).url), scene.fault(reasons=()):
        named = damage(folder)
        message = refusal(folder)
        scene.hold(_HOLD_S)
    scene.promise(any(name in message for name in named), f"a start on it failed with: {message}")
    scene.notes.append(f"a start on it: {message.partition(folder.name + ': ')[2]}")


def refusal(folder: Path) -> str:
    """Returns the last line of a start on an artefact, or what was wrong with that start, without delaying the load."""
    command = [
        "nice",
        "-n",
        "19",
        sys.executable,
        "-m",
        "service.cli",
        "serve",
        "--port",
        "0",
        "--artifact",
        str(folder),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, check=False, cwd=folder.parent, timeout=_EXIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it started"
    lines = done.stderr.strip().splitlines() or [""]
    return lines[-1] if done.returncode == 1 else f"it ended with {done.returncode}: {lines[-1]}"


def corrupt(folder: Path) -> Sequence[str]:
    """Fills the middle of every file with zeros."""
    for name in FILES:
        with (folder / name).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(size // 4)
            file.write(bytes(size // 2))
    return FILES


def truncated(folder: Path) -> Sequence[str]:
    """Cuts every file in half."""
    for name in FILES:
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
    return FILES


def swapped(folder: Path) -> Sequence[str]:
    """Replaces one file by that of another valid artefact of the same sizes."""
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    name = signal_file(POPULARITY)
    arrays = {key: np.array(array) for key, array in map_arrays(other / name).items()}
    arrays["share"] = arrays["share"][::-1]
    save_arrays(other / name, **arrays)
    manifest = orjson.loads((other / MANIFEST).read_bytes())
    for made in ("format", "format_version", "model_version", "files"):
        manifest.pop(made)
    seal(other, manifest, "other")
    shutil.copyfile(other / name, folder / name)
    return (name,)


def newer(folder: Path) -> Sequence[str]:
    """Declares a format of a future release."""
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest | {"format_version": FORMAT_VERSION + 1}))
    return (MANIFEST,)


_KEEPS = (
    "who serves it goes on (files of up to 16 MiB are read, not mapped); a start on it is refused by the file's name"
)

FAULTS = (
    Fault("process kill -9", "process", "The service is killed in the midst of writes and started again, three times",
          "every acknowledged event is there, none twice; well as soon as it is started", killed),
    Fault("process SIGTERM", "process", "The service is stopped under load and started again, three times",
          "what was accepted is answered; afterwards connections are refused", stopped),
    *(
        Fault(f"artefact {name}", "process", f"{text}, in place, under the service that serves it", _KEEPS,
              partial(damaged, damage=damage))
        for name, text, damage in (
            ("corrupt", "The middle of every file of the artefact is overwritten", corrupt),
            ("truncated", "Every file of the artefact is cut in half", truncated),
            ("swapped", "A file of another artefact is copied over one of this", swapped),
            ("newer", "The manifest says a newer format", newer),
        )
    ),
)  # fmt: skip
