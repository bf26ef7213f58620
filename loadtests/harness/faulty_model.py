"""`gpt4rec serve` around a model that misbehaves on command.

    python -m loadtests.harness.faulty_model --control FILE --artifact DIR [--redis URL] [--data-dir DIR]
        --port P [--port-file FILE]

    with faulty(artifact) as (service, control):     such a process, ready
    with misbehaving(artifact, {"run_ms": 8}) as …   the same, with the fault from its start on
        control.set(run_ms=300)                      until the next `set`; `set()` alone ends every fault

The model, its graphs and the service around it are the real ones: a fault adds to what they do. The control file is one
JSON object of `Faults`, read again whenever it has changed. Settings are the environment variables of the service.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from loadtests.harness.served_process import NOTHING_KEPT, Served, started
from service.cli.outermost import run_command

_TICK_S = 0.005
_SYSTEM_TIME = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What a run of the decoder meets.

    Attributes:
        run_ms: Delay of a run.
        row_ms: Delay of a run for each row of its batch.
        slow_share: Share of the runs that are delayed.
        raise_share: Share of the runs that raise.
        nan_share: Share of the runs that decode from a state of NaNs.
        hang: Blocks every run until it is false again.
        clock_s: Shift of this process's wall clock.
    """

    run_ms: float = 0.0
    row_ms: float = 0.0
    slow_share: float = 1.0
    raise_share: float = 0.0
    nan_share: float = 0.0
    hang: bool = False
    clock_s: float = 0.0


class Control:
    """Sets the faults from outside the process."""

    def __init__(self, path: Path, **faults: Any) -> None:
        self.path = path
        self.set(**faults)

    def set(self, **faults: Any) -> None:
        """Sets these faults and no others, from the next run on."""
        aside = self.path.with_name(self.path.name + ".new")
        aside.write_bytes(orjson.dumps(asdict(Faults(**faults))))
        aside.replace(self.path)


class Followed:
    """The faults in force, as the process reads them."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._faults = path, (0, 0), Faults()

    @property
    def faults(self) -> Faults:
        """The faults in force; the file is read again if it has changed."""
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._read:
            self._faults, self._read = Faults(**orjson.loads(self._path.read_bytes())), stamp
        return self._faults


class FaultyEngine:
    """An engine whose decoder meets the faults; everything else is the engine itself."""

    def __init__(self, engine: Any, control: Followed) -> None:
        self._engine, self._control = engine, control
        self._random = random.Random(0)  # noqa: S311 - chooses the runs that meet a fault, repeatably

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._engine, name, value)

    def decode(self, jobs: Sequence[Any]) -> Any:
        """Decodes a batch, after its faults."""
        faults = self._control.faults
        while faults.hang:
            time.sleep(_TICK_S)
            faults = self._control.faults
        if self._random.random() < faults.slow_share:
            time.sleep((faults.run_ms + faults.row_ms * len(jobs)) / 1000.0)
        if self._random.random() < faults.raise_share:
            raise RuntimeError("an injected fault")
        if self._random.random() < faults.nan_share:
            jobs = [replace(job, h=np.full_like(job.h, np.nan)) for job in jobs]
        return self._engine.decode(jobs)


def _open_ill(engines: Any, version: str, followed: Followed) -> None:
    """Makes the engine of that version meet the faults when it is opened."""
    opened = engines.open

    def faulty_or_not(path: Path, **placement: Any) -> Any:
        engine = opened(path, **placement)
        return FaultyEngine(engine, followed) if engine.model_version == version else engine

    engines.open = faulty_or_not


@contextmanager
def misbehaving(
    artifact: Path, faults: Mapping[str, Any], /, *arguments: str, **environment: str
) -> Iterator[tuple[Served, Control]]:
    """Runs such a service on an empty embedded store, unless `--redis` is among the arguments.

    The faults are in force from its start on.

    Raises:
        NotReadyError: If the service does not become ready.
    """
    with tempfile.TemporaryDirectory(prefix="gpt4rec-faulty-") as folder:
        data, control = Path(folder) / "data", Control(Path(folder) / "control.json", **faults)
        redis = () if "--redis" in arguments else ("--redis", "embedded", "--data-dir", str(data))
        command = [sys.executable, "-m", "loadtests.harness.faulty_model", "--control", str(control.path),
                   "--artifact", str(artifact.resolve()), *redis, *arguments]  # fmt: skip
        chosen = {**NOTHING_KEPT, **environment}  # a kept list would not ask the model
        with started(command, "/readyz", Path(folder) / "log", **chosen) as (process, url, ready_s):
            yield Served(process, url, ready_s, data), control


def faulty(artifact: Path, *arguments: str, **environment: str) -> AbstractContextManager[tuple[Served, Control]]:
    """Runs such a service, healthy at first."""
    return misbehaving(artifact, {}, *arguments, **environment)


def main(
    control: Annotated[Path, typer.Option(help="File of the faults in force.")],
    artifact: Annotated[Path, typer.Option(help="Artefact folder to serve.")],
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 0,
    redis: Annotated[str | None, typer.Option(help="`embedded` or a URL.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded server's data.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
    port_file: Annotated[Path | None, typer.Option(help="Write the bound port here once ready.")] = None,
    ill: Annotated[
        str | None,
        typer.Option(help="The only model version that meets the faults; by default every run does."),
    ] = None,
) -> None:
    """Serves until a signal."""
    followed = Followed(control)
    # Before the service is imported: its modules keep the clock that they find.
    time.time = lambda: _SYSTEM_TIME() + followed.faults.clock_s
    from service import server
    from service.api.listeners import bind
    from service.app import create_app
    from service.common import logs
    from service.engine.engine import Engine
    from service.settings import loader as configuration

    settings = configuration.load(artifact=artifact, port=port, redis_url=redis, data_dir=data_dir, log_level=log_level)
    logs.configure(settings.log_level)
    if ill is None:
        engine = Engine.open(artifact, device=settings.device, threads=settings.engine_threads or None)
        app = create_app(settings, engine=FaultyEngine(engine, followed))
    else:
        _open_ill(Engine, ill, followed)
        app = create_app(settings)

    def announce(bound: int) -> None:
        if port_file is not None:
            server.write_port(port_file, bound)

    server.serve_app(app, settings, [bind(settings.host, settings.port)], announce)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_command(main)
