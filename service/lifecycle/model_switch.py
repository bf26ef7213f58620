"""Switches the served model without a pause.

    activate   find the folder → verify every checksum → open → canary → warm up      the old model keeps answering
               → write the choice to Redis, with its audit entry → swap in one step
    follow     the choice of another replica, in the same steps; if that fails, the old model stays and `fault` says why

A request finishes with the model it began with. The old model is closed once its last request must have finished. A
choice is written to Redis only after this replica has the model ready, so a model that fails here never spreads.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.common import logs
from service.common.errors import StoreUnavailable
from service.common.request_errors import Conflict, ModelRefused, NotFound
from service.coordination.audit import Audit
from service.coordination.replica_registry import ReplicaRegistry
from service.coordination.shared_choice import SharedChoice
from service.coordination.shared_value import age_of
from service.lifecycle.loader import LoadedModel
from service.lifecycle.model_admission import ModelAdmission
from service.lifecycle.model_choice import after_activation, after_rollback, chosen_fields, earlier_versions
from service.lifecycle.model_folders import ModelFolder, ModelFolders
from service.lifecycle.serving import Serving
from service.metrics.service_metrics import Metrics
from service.process.disk_lane import HungFileError

log = logs.get(__name__)

# How often a replica reports what it serves, and looks again for a missing folder.
_REPORT_S = 5.0
# Extra time before the old model is closed, after the last of its requests must have finished.
_SPARE_S = 1.0
_HANGS = "the folder of the models does not answer; does its disk hang?"


class ModelSwitch:
    """Serves the model that operators choose, and goes back to the one before on request.

    Args:
        first: The model that is served at the start.
        serving: Where requests find the model.
        admission: Loads and checks models.
        folders: The model versions on this machine.
        choice: The choice that operators share.
        replicas: What the replicas report of each other.
        audit: Where refused models are recorded.
        metrics: Counts switches.
        on_swap: Called when another model than before is served.
        on_close: Called after an old model was closed, so that what is cached for it can be dropped.
        deployed: Name of the configured artefact. A choice is valid only for the deployment it was made in: another
            configured artefact starts with that artefact.
        busy_s: The longest time a request may take.
    """

    def __init__(
        self,
        first: LoadedModel,
        serving: Serving,
        admission: ModelAdmission,
        folders: ModelFolders,
        choice: SharedChoice,
        replicas: ReplicaRegistry,
        audit: Audit,
        metrics: Metrics,
        *,
        on_swap: Callable[[], None],
        on_close: Callable[[], None],
        deployed: str | None,
        busy_s: float,
    ) -> None:
        self._loaded, self._serving, self._admission, self._folders = first, serving, admission, folders
        self._choice, self._replicas, self._audit, self._metrics = choice, replicas, audit, metrics
        self._deployed, self._busy_s = deployed, busy_s
        self._on_swap, self._on_close = on_swap, on_close
        self.artifact = deployed
        """Name of the folder of the served model."""
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._replaced: str | None = None  # the version that this process served before
        self._following_fault: str | None = None
        self._counted: object = None
        self._retiring: set[asyncio.Task[None]] = set()
        choice.subscribe(self._wake.set)
        for outcome in ("activated", "refused", "missing"):
            metrics.model_reload.labels(outcome)
        metrics.model_info.labels(self.active).set(1)

    @property
    def active(self) -> str:
        """The version that new requests use."""
        return self._serving.model.version

    @property
    def chosen(self) -> str | None:
        """The version that operators chose for this deployment; None if they chose none."""
        fields = self._choice.choice.fields
        return fields["version"] if fields and fields.get("deployed") == self._deployed else None

    @property
    def previous(self) -> str | None:
        """The version that a rollback would activate; None if there is none."""
        return next(iter(self._earlier()), None)

    async def activate(self, version: str, *, actor: str, reason: str | None) -> None:
        """Serves a version on every replica. This replica serves it when the call returns.

        Args:
            version: The model version.
            actor: Name of the operator, for the audit.
            reason: Why, for the audit.

        Raises:
            NotFound: this replica does not have the version.
            Conflict: another model is being loaded here.
            ModelRefused: the version cannot be served; the old one stays.
        """
        self._refuse_while_loading()
        await self._shielded(version, actor, reason, back=False)

    async def rollback(self, *, actor: str, reason: str | None) -> None:
        """Activates the previous version. The next rollback goes one further back, never to the version left here.

        Raises:
            Conflict: there is no previous version, or another model is being loaded here.
            NotFound: this replica does not have the previous version.
            ModelRefused: the previous version cannot be served any more.
        """
        if self.previous is None:
            raise Conflict("there is no previous version to roll back to")
        self._refuse_while_loading()
        await self._shielded(self.previous, actor, reason, back=True)

    async def to_json(self) -> dict[str, Any]:
        """Returns the served version, the available versions, and the reports of all replicas (None without Redis)."""
        folders = await self._folders.list_or_known()
        models = [self._described(folder) for folder in folders.values()]
        if self.active not in folders:  # the engine was given, or the folder was removed
            gone = ModelFolder(self.active, Path(), (), fault="its folder no longer exists")
            models.append(gone.to_json(active=True))
        return {
            "active": self.active,
            "previous": self.previous,
            "chosen": self.chosen,
            "loading": self._admission.loading,
            "fault": self._following_fault,
            **self._choice.choice.to_json(),
            "shared": self._choice.shared,
            "models": models,
            "replicas": await self._replica_reports(),
        }

    async def run(self) -> None:
        """Follows the shared choice until cancelled, and reports to the other replicas what is served here."""
        while True:
            self._wake.clear()
            await self.follow()
            with contextlib.suppress(StoreUnavailable):
                await self._replicas.report(self.active, self._following_fault)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_S):
                    await self._wake.wait()

    async def follow(self) -> None:
        """Serves the chosen version if this replica can; otherwise `fault` in `to_json` says why not."""
        async with self._lock:
            wanted = self.chosen
            if wanted is None or wanted == self.active:
                self._following_fault = None
                return
            try:
                folder = (await self._folders.list()).get(wanted)
            except HungFileError:
                self._following_fault = f"the chosen version {wanted} cannot be looked for: {_HANGS}"
                return
            if folder is None:
                self._following_fault = f"the chosen version {wanted} is not here; copy it beside the others"
                self._count_once("missing", wanted)
                return
            if cause := self._admission.fault_of(folder):
                self._following_fault = f"the chosen version {wanted} is refused: {cause}"
                self._count_once("refused", wanted)
                return
            try:
                self._swap(await self._admission.load(folder), folder)
                self._following_fault = None
            except ModelRefused as error:
                self._following_fault = f"the chosen version {wanted} is refused: {error}"
                self._count_once("refused", wanted)

    async def close(self) -> None:
        """Closes the served model and those that still wait for their last requests."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._loaded.close()
        await self._replicas.leave()

    def _refuse_while_loading(self) -> None:
        if self._lock.locked():
            raise Conflict(
                f"the model {self._admission.loading or 'of another replica'} is being loaded; try again in a moment"
            )

    def _earlier(self) -> list[str]:
        """The versions that rollbacks go back to, the nearest first."""
        if self.chosen is not None:
            return earlier_versions(self._choice.choice.fields)
        return [self._replaced] if self._replaced else []

    async def _shielded(self, version: str, actor: str, reason: str | None, *, back: bool) -> None:
        """A caller that disconnects must not stop the switch half-way."""
        await asyncio.shield(asyncio.ensure_future(self._activate(version, actor, reason, back=back)))

    async def _activate(self, version: str, actor: str, reason: str | None, *, back: bool) -> None:
        async with self._lock:
            try:
                folder = (await self._folders.list()).get(version)
            except HungFileError:
                raise ModelRefused(_HANGS) from None
            if folder is None:
                raise NotFound("no model with this version on this replica")
            before = self.active
            loaded = None
            if version != before:
                try:
                    loaded = await self._admission.load(folder)
                except ModelRefused as error:
                    self._metrics.model_reload.labels("refused").inc()
                    details = {"model": version, "instead": before, "reason": reason, "cause": str(error)}
                    await self._audit.record(actor, "model_refused", details)
                    raise
            try:
                left = self.chosen or before  # a replica that lacks the chosen version serves another one
                earlier = (after_rollback if back else after_activation)(version, left, self._earlier())
                fields = chosen_fields(version, earlier, self._deployed)
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

    def _swap(self, loaded: LoadedModel, folder: ModelFolder) -> None:
        old, self._loaded = self._loaded, loaded
        self._replaced = self.active
        loaded.serve(self._serving)
        self._on_swap()
        self.artifact = folder.path.name
        self._metrics.model_info.remove(self._replaced)
        self._metrics.model_info.labels(self.active).set(1)
        self._metrics.model_reload.labels("activated").inc()
        # Full collections need not walk what stays for good (see `service.server`).
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
            self._on_close()
        log.info("model_let_go", model_version=version)

    def _count_once(self, outcome: str, wanted: str) -> None:
        """Counts a choice that cannot be followed once, however often it is tried."""
        failure = (outcome, wanted, age_of(self._choice.choice))
        if failure != self._counted:
            self._counted = failure
            self._metrics.model_reload.labels(outcome).inc()
            log.error("model_not_followed", model_version=wanted, outcome=outcome)

    def _described(self, folder: ModelFolder) -> dict[str, Any]:
        return folder.to_json(active=folder.version == self.active, refused=self._admission.fault_of(folder))

    async def _replica_reports(self) -> list[dict[str, Any]] | None:
        try:
            await self._replicas.report(self.active, self._following_fault)
            return await self._replicas.reports()
        except StoreUnavailable:
            return None
