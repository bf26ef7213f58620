"""Takes an artefact into service: opens it, checks it, warms it up and puts it behind its batchers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from service.artifact.artifact import Artifact
from service.artifact.features import NO_EVENTS
from service.artifact.signature import KeyFileError, TrustedKeys
from service.batching.batcher import Batcher, BatchLimits
from service.batching.run_scheduler import NO_TURNS, StageTurns
from service.catalogue.live_items import LiveItems
from service.catalogue.updates import CatalogueUpdates
from service.common.errors import ModelAttemptFailed, SettingsError, StartupError
from service.engine.interface import EngineLike, Stage
from service.engine.jobs import EncodeJob
from service.engine.live_catalogue import LiveCatalogue
from service.lifecycle import canary
from service.lifecycle.evictable_engine import EvictableEngine, Footprint
from service.lifecycle.filter_builds import FilterBuilds
from service.lifecycle.filter_ration import FilterRation
from service.lifecycle.resident_models import ResidentModels
from service.lifecycle.served_model import ServedModel
from service.lifecycle.serving import Serving
from service.metrics.service_metrics import Metrics
from service.process.background import spawn
from service.process.low_priority import low_priority_thread
from service.process.memory import resident_bytes
from service.settings.environment import PREFIX
from service.settings.space import Space

Refusal = Callable[[], ModelAttemptFailed | None]


def _never() -> None:
    """Refuses nothing."""


_GRAPH_OF: Mapping[Stage, str] = {"encode": "encoder", "decode": "decoder"}


class LoadedModel:
    """A warm model and the tasks that run for it.

    When its catalogue changes, `model` is replaced, and so is the model in the `Serving` that it was put into, as long
    as that still serves it.

    Attributes:
        model: The model over its current catalogue.
        stack: Closes the engine, the batchers and the tasks of the model.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model = self._latest = model
        self.stack = AsyncExitStack()
        self._serving: Serving | None = None

    def serve(self, serving: Serving) -> None:
        """Puts this model in service: new requests use it from now on."""
        self._serving = serving
        serving.replace(self.model)

    def over(self, live: LiveCatalogue) -> ServedModel:
        """Returns the model over a changed catalogue. It takes a while: not for the event loop. One call at a time."""
        self._latest = self._latest.over(live)
        return self._latest

    def updated(self, model: ServedModel) -> None:
        """Takes over the model over a changed catalogue. Call it on the event loop."""
        self.model = model
        if self._serving is not None and self._serving.model.engine is self.model.engine:
            self._serving.replace(self.model)

    async def close(self) -> None:
        """Stops the tasks of the model and frees its memory. No request may use it any more."""
        await self.stack.aclose()


class Loader:
    """Opens and starts models as the settings of a space say.

    Args:
        space: What belongs to the space.
        metrics: Of the space.
        turns: Where the runs of its models take turns with those of other spaces.
        residents: Bounds the memory of the models of all spaces; None if nothing does.
    """

    def __init__(
        self, space: Space, metrics: Metrics, turns: StageTurns = NO_TURNS, residents: ResidentModels | None = None
    ) -> None:
        self._space, self._settings, self._metrics, self._turns = space, space.settings, metrics, turns
        self._residents = residents
        self._filter_ration = FilterRation(space.settings.filter_build_share)
        self._live_items: LiveItems | None = None

    def follow(self, live_items: LiveItems) -> None:
        """Lets the models that are started from now on follow the items that are stored over HTTP."""
        self._live_items = live_items

    async def open(self, folder: Path | None = None) -> EngineLike:
        """Opens the engine of an artefact after verifying every checksum.

        Args:
            folder: Folder of the artefact; None for the one of the space.

        Raises:
            StartupError: there is no artefact, it cannot be opened, or it is not signed as the settings ask for.
        """
        from service.engine.factory import open_again, open_engine

        settings = self._settings
        path = folder or self._space.artifact
        if path is None:
            raise StartupError(f"no artefact to serve: set {PREFIX}ARTIFACT or pass --artifact")
        placement: dict[str, Any] = {
            "device": settings.device,
            "threads": settings.engine_threads or None,
            "cuda_graphs": settings.cuda_graphs,
            "filter_bytes_max": int(settings.filters_mib * 2**20),
        }
        trusted = await asyncio.to_thread(trusted_keys, settings.artifact_keys)
        before = resident_bytes()
        engine: EngineLike = await asyncio.to_thread(open_engine, path, trusted=trusted, **placement)
        artifact = cast("Artifact", engine.artifact)
        if self._residents is None or artifact.baseline is not None:
            return engine  # a baseline has no sessions that could be closed
        files = await asyncio.to_thread(lambda: sum(file.stat().st_size for file in artifact.folder.iterdir()))
        return EvictableEngine(
            engine, lambda: _checked(open_again(artifact, **placement)), Footprint(files=files, before=before)
        )

    async def start(self, engine: EngineLike, *, own: bool, check_first: bool = False) -> LoadedModel:
        """Warms an engine up and puts it behind its batchers, with the catalogue updates applied.

        Args:
            engine: The engine.
            own: Whether the engine is closed together with the model.
            check_first: Whether the canary must pass first.

        Raises:
            StartupError: the engine fails the canary or the warm-up, or the updates file cannot be read.
        """
        async with AsyncExitStack() as stack:
            stack.callback(_release, engine, own)
            if check_first:
                await asyncio.to_thread(_check, engine)
            start_h = await asyncio.to_thread(_warm_up, engine)
            engine.observe(_RunMetrics(self._metrics))
            loaded = LoadedModel(self._model(stack, engine, start_h))
            path, live = self._space.catalogue_updates, self._live_items
            await self._adopt(stack, engine, loaded)
            if path is not None or live is not None or loaded.model.catalogue.restricted:
                spawn(stack, (await _follow_catalogue(path, live, loaded, self._metrics)).run)
            loaded.stack = stack.pop_all()
        return loaded

    async def _adopt(self, stack: AsyncExitStack, engine: EngineLike, loaded: LoadedModel) -> None:
        """Lets a model be closed when others need its memory more."""
        if self._residents is None or not isinstance(engine, EvictableEngine):
            return
        resident = await self._residents.adopt(
            engine,
            space=self._space.name,
            nbytes=engine.footprint.nbytes(),
            busy=lambda: loaded.model.busy,
            metrics=self._metrics,
        )
        stack.callback(self._residents.forget, resident)

    def _model(self, stack: AsyncExitStack, engine: EngineLike, start_h: npt.NDArray[np.float32]) -> ServedModel:
        settings, metrics = self._settings, self._metrics
        limits = BatchLimits(
            batch_max=settings.batch_max,
            window_s=settings.batch_window_ms / 1000.0,
            queue_max=settings.queue_max,
            stall_s=settings.engine_stall_s,
        )
        turns = self._turns
        to_encode, to_decode = self._refusals(engine)
        encoder = Batcher(
            engine.encode,
            metrics,
            limits,
            group=lambda job: job.run_key,
            name="encode",
            turns=turns.encode,
            refusal=to_encode,
        )
        decoder = Batcher(
            engine.decode,
            metrics,
            limits,
            group=lambda job: job.run_key,
            name="decode",
            turns=turns.decode,
            refusal=to_decode,
        )
        for batcher in (encoder, decoder):
            batcher.start()
            stack.push_async_callback(batcher.close, settings.drain_timeout_s)
        builder = low_priority_thread("filters")
        stack.callback(builder.shutdown, wait=False, cancel_futures=True)
        filters = FilterBuilds(lambda: engine.filters, self._filter_ration, metrics, builder)
        return ServedModel.of(engine, encoder, decoder, start_h, filters, settings.order_first)

    def _refusals(self, engine: EngineLike) -> tuple[Refusal, Refusal]:
        """What says why an engine cannot encode or decode at present.

        Lists ask for a closed engine, and what is encoded behind events waits for them: the next list encodes it. A
        process that only encodes has no lists, so events ask for the engine there.
        """
        if not isinstance(engine, EvictableEngine):
            return _never, _never
        return partial(engine.refusal, want=self._settings.role == "encode"), engine.refusal


def trusted_keys(file: Path | None) -> TrustedKeys | None:
    """Reads the keys that may have signed artefacts; None without a file of them.

    Raises:
        SettingsError: The file cannot be used. Nothing is loaded then: without it, anything could be.
    """
    if file is None:
        return None
    try:
        return TrustedKeys.read(file)
    except KeyFileError as error:
        raise SettingsError(f"{PREFIX}ARTIFACT_KEYS: {error}") from error


class _RunMetrics:
    """Batch sizes and durations of an engine's runs; lists are one stage, whichever graph makes them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def ran(self, stage: Stage, rows: int, seconds: float) -> None:
        self._metrics.batch_size.labels(_GRAPH_OF[stage]).observe(rows)
        self._metrics.stage_duration.labels(stage).observe(seconds)


def _release(engine: EngineLike, own: bool) -> None:
    engine.observe(None)
    if own:
        engine.close()


def _checked(engine: EngineLike) -> EngineLike:
    """Returns an engine that passed its check and is warm; closes one that does not. Raises StartupError then."""
    try:
        _check(engine)
        _warm_up(engine)
    except BaseException:
        engine.close()
        raise
    return engine


def _check(engine: EngineLike) -> None:
    """Runs the canary. Raises StartupError when it fails."""
    try:
        canary.check(engine)
    except Exception as error:
        raise StartupError(f"the model {engine.model_version} does not pass its check: {error}") from error


def _warm_up(engine: EngineLike) -> npt.NDArray[np.float32]:
    """Warms every graph up and returns the hidden state [d] of a user without history."""
    try:
        engine.warm_up()
        state = engine.encode([EncodeJob(events=NO_EVENTS, from_start=True)])[0]
        if isinstance(state, Exception):
            raise state
    except Exception as error:
        raise StartupError(f"the model {engine.model_version} cannot be warmed up: {error}") from error
    return state.h


async def _follow_catalogue(
    path: Path | None, live_items: LiveItems | None, loaded: LoadedModel, metrics: Metrics
) -> CatalogueUpdates:
    """Applies stored items, updates file and windows before the first request; `run` of the result follows them.

    Raises StartupError when the file cannot be read.
    """
    loop = asyncio.get_running_loop()
    engine = loaded.model.engine

    def take_over(live: LiveCatalogue) -> None:
        model = loaded.over(live)  # before the engine changes: its lists must not be ahead of the model for long
        engine.update(live)
        loop.call_soon_threadsafe(loaded.updated, model)

    updates = CatalogueUpdates(cast("Artifact", engine.artifact), path, take_over, live=live_items, metrics=metrics)
    if path is None:
        if loaded.model.catalogue.restricted:
            await asyncio.to_thread(updates.turn)
        await updates.begin()
        return updates
    try:
        if not await updates.look():
            raise FileNotFoundError("no such file")
        await updates.begin()
    except OSError as error:
        raise StartupError(
            f"{PREFIX}CATALOGUE_UPDATES: {path} cannot be read ({error}); an empty file is enough to start with"
        ) from error
    return updates
