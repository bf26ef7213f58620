"""Which model is served, and the way from one to another without a pause.

    activate   find the folder → verify every checksum → open → canary → warm up      the old model answers meanwhile
               → write the choice to Redis, with its audit entry → swap in one step
    follow     another replica's choice, in the same steps; what cannot be had here is said, and the old model stays

A request ends on the model it began with. The old one is let go when its last request must have ended. Whatever is
wrong with a new model, the choice is not written before this replica has it ready, so no other replica hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from service.common import logs
from service.common.errors import Conflict, ModelRefused, NotFound, ServiceError, StoreUnavailable
from service.common.metrics import Metrics
from service.coordination.forced_mode import ModeKeeper
from service.coordination.replica_registry import Replicas
from service.coordination.shared_value import Shared
from service.lifecycle.loader import LoadedModel, Loader
from service.lifecycle.model_folders import ModelFolder, ModelFolders, without_path
from service.lifecycle.served_model import ServedModel, Serving

log = logs.get(__name__)

# How often a replica says what it serves, and looks for a folder that was missing.
_REPORT_S = 5.0
# Between the last moment a request of the old model may end and its being let go.
_SPARE_S = 1.0


def usable(fields: Mapping[str, Any]) -> bool:
    """Whether a shared choice is one that this release understands."""
    named = (fields.get("version"), fields.get("deployed"), fields.get("previous"))
    return isinstance(named[0], str) and all(name is None or isinstance(name, str) for name in named)


class Models:
    """`deployed` is the name of the artefact that the settings name: a choice holds for the deployment it was made in,
    and one that names another artefact begins with that. A model that reads more events than `history_cap` is refused,
    as is whatever the loader refuses. `busy_s` is the longest time a request may be under way.
    """

    def __init__(
        self,
        first: LoadedModel,
        serving: Serving,
        loader: Loader,
        folders: ModelFolders,
        choice: Shared,
        replicas: Replicas,
        mode: ModeKeeper,
        metrics: Metrics,
        *,
        deployed: str | None,
        history_cap: int,
        busy_s: float,
    ) -> None:
        self._loaded, self._serving, self._loader, self._folders = first, serving, loader, folders
        self._choice, self._replicas, self._mode, self._metrics = choice, replicas, mode, metrics
        self._deployed, self._history_cap, self._busy_s = deployed, history_cap, busy_s
        self.prepare: Callable[[ServedModel], Awaitable[None]] = _nothing
        """Called before a model is served: what its first requests would have to do can be done now."""
        self.swapped: Callable[[], None] = lambda: None
        """Called when another model than before is served."""
        self.forget: Callable[[], None] = lambda: None
        """Called when a model was let go: what was kept of it can go as well."""
        self.artifact = deployed
        """Name of the folder that is served."""
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._loading: str | None = None
        self._replaced: str | None = None  # what this process served before
        self._faults: dict[str, tuple[object, str]] = {}
        self._following_fault: str | None = None
        self._counted: object = None
        self._retiring: set[asyncio.Task[None]] = set()
        choice.adopted = self._wake.set
        for outcome in ("activated", "refused", "missing"):
            metrics.model_reload.labels(outcome)
        metrics.model_info.labels(self.active).set(1)

    @property
    def active(self) -> str:
        """The version that new requests take up."""
        return self._serving.model.version

    @property
    def chosen(self) -> str | None:
        """What operators chose for this deployment; None where they chose nothing."""
        fields = self._choice.choice.fields
        return fields["version"] if fields and fields.get("deployed") == self._deployed else None

    @property
    def previous(self) -> str | None:
        """What a rollback goes back to."""
        fields = self._choice.choice.fields
        if self.chosen == self.active:
            before: str | None = fields.get("previous")
            return before
        return self._replaced

    async def activate(self, version: str, *, actor: str, reason: str | None) -> None:
        """Serve this version on every replica. It is served here when this returns.

        Raises:
            NotFound: there is no such version here.
            Conflict: another model is being loaded here.
            ModelRefused: it cannot be served; the old one is.
        """
        if self._lock.locked():
            raise Conflict(f"the model {self._loading or 'of another replica'} is being loaded; ask again in a moment")
        # A caller that goes away does not stop it half-way.
        await asyncio.shield(asyncio.ensure_future(self._activate(version, actor, reason)))

    async def rollback(self, *, actor: str, reason: str | None) -> None:
        """`activate` the version before. Raises Conflict where there is none."""
        if self.previous is None:
            raise Conflict("there is no version before this one")
        await self.activate(self.previous, actor=actor, reason=reason)

    async def to_json(self) -> dict[str, Any]:
        """What is served, what could be, and what each replica says of itself (None while Redis is away)."""
        folders = await asyncio.to_thread(self._folders.listed)
        models = [self._described(folder) for folder in folders.values()]
        if self.active not in folders:  # handed over, or taken away since
            models.append(_entry(self.active, active=True, available=False, fault="its folder is not here any more"))
        return {
            "active": self.active,
            "previous": self.previous,
            "chosen": self.chosen,
            "loading": self._loading,
            "fault": self._following_fault,
            **self._choice.choice.to_json(),
            "shared": self._choice.shared,
            "models": models,
            "replicas": await self._told(),
        }

    async def run(self) -> None:
        """Follow the shared choice until cancelled, and tell the other replicas what is served here."""
        while True:
            self._wake.clear()
            await self.follow()
            with contextlib.suppress(StoreUnavailable):
                await self._replicas.report(self.active, self._following_fault)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_S):
                    await self._wake.wait()

    async def follow(self) -> None:
        """Serve what was chosen, where that can be had here; says so in `fault` where it cannot."""
        async with self._lock:
            wanted = self.chosen
            if wanted is None or wanted == self.active:
                self._following_fault = None
                return
            folder = (await asyncio.to_thread(self._folders.listed)).get(wanted)
            if folder is None:
                self._following_fault = f"{wanted} was chosen, and is not here"
                self._count_once("missing", wanted)
                return
            stamp, why = self._faults.get(wanted, (None, ""))
            if stamp == folder.stamp:  # it was refused, perhaps when nobody had chosen it, and is what it was
                self._following_fault = f"{wanted} was chosen, and is refused: {why}"
                self._count_once("refused", wanted)
                return
            try:
                self._swap(await self._load(folder), folder)
                self._following_fault = None
            except ModelRefused as error:
                self._following_fault = f"{wanted} was chosen, and is refused: {error}"
                self._count_once("refused", wanted)

    async def close(self) -> None:
        """Ends the model that is served, and those that were."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._loaded.close()
        await self._replicas.leave()

    async def _activate(self, version: str, actor: str, reason: str | None) -> None:
        async with self._lock:
            folder = (await asyncio.to_thread(self._folders.listed)).get(version)
            if folder is None:
                raise NotFound("no such model version here")
            before = self.active
            loaded = None
            if version != before:
                try:
                    loaded = await self._load(folder)
                except ModelRefused as error:
                    self._metrics.model_reload.labels("refused").inc()
                    details = {"model": version, "instead": before, "reason": reason, "cause": str(error)}
                    await self._mode.record(actor, "model_refused", details)
                    raise
            try:
                previous = before if version != before else self.previous
                fields = {"version": version, "previous": previous, "deployed": self._deployed}
                details = {"model": version, "instead_of": before}
                await self._choice.set(fields, actor=actor, reason=reason, details=details)
            except BaseException:
                if loaded is not None:
                    await loaded.close()
                raise
            self._following_fault = None
            if loaded is not None:
                self._swap(loaded, folder)
        self._wake.set()

    async def _load(self, folder: ModelFolder) -> LoadedModel:
        """Ready to answer. Raises ModelRefused, and remembers why."""
        self._loading = folder.version
        engine = None
        try:
            if folder.fault is not None:
                raise ModelRefused(folder.fault)
            engine = await self._loader.open(folder.path)
            if engine.receptive_field > self._history_cap:
                raise ModelRefused(
                    f"it reads {engine.receptive_field} events, and histories here keep {self._history_cap}: set "
                    f"GPT4REC_HISTORY_CAP to {engine.receptive_field} and restart"
                )
            loaded = await self._loader.start(engine, own=True, check_first=True)
            engine = None
            await self._prepared(loaded)
        except Exception as error:
            if engine is not None:
                engine.close()
            known = isinstance(error, ServiceError)
            why = without_path(error, folder.path) if known else f"it cannot be loaded ({type(error).__name__})"
            self._faults[folder.version] = (folder.stamp, why)
            log.error("model_refused", model_version=folder.version, cause=why, **({} if known else logs.where(error)))
            raise ModelRefused(why) from error
        finally:
            self._loading = None
        self._faults.pop(folder.version, None)
        return loaded

    async def _prepared(self, loaded: LoadedModel) -> None:
        """Best effort: without it, the first requests do the same."""
        try:
            await self.prepare(loaded.model)
        except Exception as error:
            log.error("model_not_prepared", **logs.where(error))

    def _swap(self, loaded: LoadedModel, folder: ModelFolder) -> None:
        old, self._loaded = self._loaded, loaded
        self._replaced = self.active
        loaded.serve(self._serving)
        self.swapped()
        self.artifact = folder.path.name
        self._metrics.model_info.remove(self._replaced)
        self._metrics.model_info.labels(self.active).set(1)
        self._metrics.model_reload.labels("activated").inc()
        # What was built for good is not walked again by every full collection (see `service.server`).
        gc.freeze()
        log.info("model_activated", model_version=self.active, instead_of=self._replaced)
        task = asyncio.create_task(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, old: LoadedModel) -> None:
        version = old.model.version
        try:
            await asyncio.sleep(self._busy_s + _SPARE_S)
        finally:
            await old.close()
            self.forget()
        log.info("model_let_go", model_version=version)

    def _count_once(self, outcome: str, wanted: str) -> None:
        """A choice that cannot be followed counts once, however often it is looked at."""
        what = (outcome, wanted, self._choice.choice.age)
        if what != self._counted:
            self._counted = what
            self._metrics.model_reload.labels(outcome).inc()
            log.error("model_not_followed", model_version=wanted, outcome=outcome)

    def _described(self, folder: ModelFolder) -> dict[str, Any]:
        stamp, why = self._faults.get(folder.version, (None, ""))
        fault = folder.fault or (why if stamp == folder.stamp else None)
        return _entry(
            folder.version,
            active=folder.version == self.active,
            available=fault is None,
            fault=fault,
            created_at=folder.created_at,
            metrics=dict(folder.metrics),
        )

    async def _told(self) -> list[dict[str, Any]] | None:
        try:
            await self._replicas.report(self.active, self._following_fault)
            return await self._replicas.listed()
        except StoreUnavailable:
            return None


async def _nothing(_: ServedModel) -> None:
    """There is nothing to prepare."""


def _entry(
    version: str,
    *,
    active: bool,
    available: bool,
    fault: str | None,
    created_at: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    return {
        "version": version, "created_at": created_at, "metrics": dict(metrics or {}), "active": active,
        "available": available, "fault": fault,
    }  # fmt: skip
