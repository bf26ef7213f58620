"""Models that are held beside the one in service, for arms of experiments and the hold-out.

What is wanted is loaded one after the other, checked as for an activation, and closed once its last request must have
ended. The memory of all is bounded: what does not fit is refused by name, before it is loaded where the disk already
says so, else by what the process was seen to grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from service.common import logs
from service.common.request_errors import ModelRefused, NotFound
from service.lifecycle.loader import LoadedModel
from service.lifecycle.model_admission import ModelAdmission
from service.lifecycle.model_folders import ModelFolder, ModelFolders
from service.lifecycle.served_model import ServedModel
from service.lifecycle.serving import Serving
from service.metrics.service_metrics import Metrics
from service.process.disk_lane import HungFileError
from service.process.memory import resident_bytes

log = logs.get(__name__)

# How often a missing folder is looked for again.
_AGAIN_S = 5.0
_SPARE_S = 1.0
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """A model that is held, and the bytes it was seen to take."""

    loaded: LoadedModel
    nbytes: int


class HeldModels:
    """Holds the models that are wanted beside the served one.

    Args:
        serving: The model in service, which is never held twice.
        admission: Loads and checks models.
        folders: The versions on this machine.
        wanted: Returns the versions that are wanted now.
        metrics: Shows how many are held, and their bytes.
        bytes_max: Bytes that all held models may take.
        on_close: Called after a model was closed, so that what is cached for it can be dropped.
        busy_s: The longest time a request may take.
    """

    def __init__(
        self,
        serving: Serving,
        admission: ModelAdmission,
        folders: ModelFolders,
        wanted: Callable[[], Sequence[str]],
        metrics: Metrics,
        *,
        bytes_max: int,
        on_close: Callable[[], None],
        busy_s: float,
    ) -> None:
        self._serving, self._admission, self._folders, self._wanted = serving, admission, folders, wanted
        self._metrics, self._bytes_max, self._on_close, self._busy_s = metrics, bytes_max, on_close, busy_s
        self._held: dict[str, Held] = {}
        self._faults: dict[str, str] = {}
        self._reserved: set[str] = set()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> list[ServedModel]:
        """The held models."""
        return [held.loaded.model for held in self._held.values()]

    @property
    def nbytes(self) -> int:
        """Bytes that the held models were seen to take."""
        return sum(held.nbytes for held in self._held.values())

    def get(self, version: str) -> ServedModel | None:
        """Returns a model that is in service or held; None if it is neither."""
        if self._serving.model.version == version:
            return self._serving.model
        held = self._held.get(version)
        return None if held is None else held.loaded.model

    def look(self) -> None:
        """Compares soon what is held with what is wanted."""
        self._wake.set()

    @contextmanager
    def reserved(self, versions: Sequence[str]) -> Iterator[None]:
        """Keeps versions that are not wanted yet, while the choice of them is written."""
        self._reserved.update(versions)
        try:
            yield
        finally:
            self._reserved.difference_update(versions)
            self.look()

    async def hold(self, version: str) -> None:
        """Loads a version unless it is there.

        Raises:
            NotFound: This replica does not have it.
            ModelRefused: It cannot be served, or does not fit the memory.
        """
        async with self._lock:
            await self._hold(version)

    async def folder(self, version: str) -> ModelFolder:
        """Returns the folder of a version.

        Raises:
            NotFound: This replica does not have it.
            ModelRefused: The disk hangs.
        """
        try:
            folder = (await self._folders.list()).get(version)
        except HungFileError:
            raise ModelRefused("the folder of the models does not answer; does its disk hang?") from None
        if folder is None:
            raise NotFound(f"no model {version} on this replica; copy it beside the others")
        return folder

    async def run(self) -> None:
        """Holds what is wanted, until cancelled."""
        while True:
            self._wake.clear()
            await self.follow()
            try:
                async with asyncio.timeout(_AGAIN_S if self._faults else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def follow(self) -> None:
        """Closes what is not wanted any more, and loads what is missing; faults are in `to_json`."""
        async with self._lock:
            wanted = {*self._wanted(), *self._reserved}
            for version in [version for version in self._held if not self._needs(version, wanted)]:
                self._release(version)
            self._faults = {version: fault for version, fault in self._faults.items() if version in wanted}
            for version in sorted(wanted):
                try:
                    await self._hold(version)
                    self._faults.pop(version, None)
                except (NotFound, ModelRefused) as error:
                    if self._faults.get(version) != str(error):
                        log.error("model_not_held", model_version=version, cause=str(error))
                    self._faults[version] = str(error)

    async def close(self) -> None:
        """Closes all of them, and those that still wait for their last requests."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for held in self._held.values():
            await held.loaded.close()
        self._held.clear()

    def to_json(self) -> dict[str, Any]:
        """Returns what is held, what could not be, and the memory."""
        return {
            "limit_mib": round(self._bytes_max / _MIB, 1),
            "held_mib": round(self.nbytes / _MIB, 1),
            "held": {version: round(held.nbytes / _MIB, 1) for version, held in self._held.items()},
            "faults": dict(self._faults),
        }

    def room_for(self, folder: ModelFolder) -> str | None:
        """Returns why a version cannot fit, by its size on the disk; None if it may."""
        left, size = self._bytes_max - self.nbytes, size_of(folder)
        return None if size <= left else self._too_large(folder.version, size, "has on the disk")

    def _needs(self, version: str, wanted: set[str]) -> bool:
        return version in wanted and self._serving.model.version != version

    async def _hold(self, version: str) -> None:
        if self.get(version) is not None:
            return
        folder = await self.folder(version)
        if (cause := self._admission.fault_of(folder)) is not None:
            raise ModelRefused(cause)
        if (cause := self.room_for(folder)) is not None:
            raise ModelRefused(cause)
        before = resident_bytes()
        loaded = await self._admission.load(folder)
        grown = max(size_of(folder), resident_bytes() - before)
        if grown > self._bytes_max - self.nbytes:
            cause = self._too_large(version, grown, "was seen to take")
            await loaded.close()
            raise ModelRefused(cause)
        self._held[version] = Held(loaded, grown)
        self._show()
        log.info("model_held", model_version=version, mib=round(grown / _MIB, 1))

    def _too_large(self, version: str, nbytes: int, how: str) -> str:
        others = ", ".join(f"{name} {held.nbytes / _MIB:.0f} MiB" for name, held in self._held.items())
        return (
            f"the model {version} {how} {nbytes / _MIB:.0f} MiB, but of the {self._bytes_max / _MIB:.0f} MiB for held "
            f"models {(self._bytes_max - self.nbytes) / _MIB:.0f} MiB are left{f' beside {others}' if others else ''}: "
            "end an experiment, or raise GPT4REC_MODELS_HELD_MIB and restart"
        )

    def _release(self, version: str) -> None:
        held = self._held.pop(version)
        self._show()
        task = asyncio.create_task(self._retire(held.loaded))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, loaded: LoadedModel) -> None:
        try:
            await asyncio.sleep(self._busy_s + _SPARE_S)
        finally:
            await loaded.close()
            self._on_close()
        log.info("model_let_go", model_version=loaded.model.version)

    def _show(self) -> None:
        self._metrics.models_held.set(len(self._held))
        self._metrics.model_bytes_held.set(self.nbytes)


def size_of(folder: ModelFolder) -> int:
    """Returns the bytes of a version's files."""
    return sum(size for _, _, size in folder.stamp)
