"""From an artefact to a model in service: opened, tried, warmed up, and put behind its batchers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from service.artifact.artifact import Artifact
from service.batching.batcher import Batcher, BatchLimits
from service.catalogue.updates import CatalogueUpdates
from service.common.background import spawn
from service.common.errors import StartupError
from service.common.metrics import Metrics
from service.common.settings import PREFIX, Settings
from service.engine.interface import EngineLike
from service.engine.jobs import EncodeJob
from service.engine.live_catalogue import LiveCatalogue
from service.lifecycle import canary
from service.lifecycle.served_model import ServedModel, Serving

_STAGE_OF = {"encoder": "encode", "decoder": "decode", "sampler": "decode"}


class Loaded:
    """A warm model and what runs for it. `model` is replaced where its catalogue changes, and in the `serving` that it
    was put into, as long as it is the one served there."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.stack = AsyncExitStack()
        self._serving: Serving | None = None

    def serve(self, serving: Serving) -> None:
        """New requests take this model up, in one step."""
        self._serving = serving
        serving.replace(self.model)

    def updated(self, live: LiveCatalogue) -> None:
        """Its catalogue has changed; called on the event loop."""
        self.model = self.model.over(live)
        if self._serving is not None and self._serving.model.engine is self.model.engine:
            self._serving.replace(self.model)

    async def close(self) -> None:
        """Ends what runs for it, and frees its memory; nothing may ask it any more."""
        await self.stack.aclose()


class Loader:
    """Opens and starts models by the settings of the service."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics

    async def open(self, folder: Path | None = None) -> EngineLike:
        """The engine of an artefact, every checksum verified; `folder` where it is not the one of the settings.

        Raises StartupError.
        """
        from service.engine.factory import open_engine

        settings = self._settings
        path = folder or settings.artifact
        if path is None:
            raise StartupError(f"no artefact to serve: set {PREFIX}ARTIFACT or give --artifact")
        engine: EngineLike = await asyncio.to_thread(
            open_engine,
            path,
            device=settings.device,
            threads=settings.engine_threads or None,
            cuda_graphs=settings.cuda_graphs,
        )
        return engine

    async def start(self, engine: EngineLike, *, own: bool, tried: bool = False) -> Loaded:
        """Warms the engine up before anything is asked of it, and puts it behind its batchers; its catalogue is as the
        file of updates says. `own`: the engine is closed with the rest. `tried`: the canary must pass first.

        Raises StartupError.
        """
        async with AsyncExitStack() as stack:
            stack.callback(_release, engine, own)
            if tried:
                await asyncio.to_thread(_try, engine)
            start_h = await asyncio.to_thread(_warm_up, engine)
            engine.on_graph = self._on_graph
            loaded = Loaded(self._model(stack, engine, start_h))
            if self._settings.catalogue_updates is not None:
                updates = await _follow_catalogue(self._settings.catalogue_updates, loaded)
                spawn(stack, updates.run)
            loaded.stack = stack.pop_all()
        return loaded

    def _model(self, stack: AsyncExitStack, engine: EngineLike, start_h: npt.NDArray[np.float32]) -> ServedModel:
        settings, metrics = self._settings, self._metrics
        limits = BatchLimits(
            batch_max=settings.batch_max,
            window_s=settings.batch_window_ms / 1000.0,
            queue_max=settings.queue_max,
            stall_s=settings.engine_stall_s,
        )
        encoder = Batcher(engine.encode, metrics, limits, group=lambda job: job.run_key, name="encode")
        decoder = Batcher(engine.decode, metrics, limits, group=lambda job: job.run_key, name="decode")
        for batcher in (encoder, decoder):
            batcher.start()
            stack.push_async_callback(batcher.close, settings.drain_timeout_s)
        filter_thread = ThreadPoolExecutor(1, thread_name_prefix="filters")
        stack.callback(filter_thread.shutdown, wait=False, cancel_futures=True)
        return ServedModel.of(engine, encoder, decoder, start_h, filter_thread)

    def _on_graph(self, graph: str, rows: int, seconds: float) -> None:
        self._metrics.batch_size.labels(graph).observe(rows)
        self._metrics.stage_duration.labels(_STAGE_OF[graph]).observe(seconds)


def _release(engine: EngineLike, own: bool) -> None:
    engine.on_graph = None
    if own:
        engine.close()


def _try(engine: EngineLike) -> None:
    """Raises StartupError where the model does something wrong."""
    try:
        canary.check(engine)
    except Exception as error:
        raise StartupError(f"the model {engine.model_version} does not pass its check: {error}") from error


def _warm_up(engine: EngineLike) -> npt.NDArray[np.float32]:
    """Warms every graph up, and returns the hidden state of a user without history."""
    nothing = np.zeros(0, np.int64)
    try:
        engine.warm_up()
        state = engine.encode([EncodeJob(None, nothing, nothing, nothing, from_start=True)])[0]
        if isinstance(state, Exception):
            raise state
    except Exception as error:
        raise StartupError(f"the model {engine.model_version} cannot be warmed up: {error}") from error
    return state.h


async def _follow_catalogue(path: Path, loaded: Loaded) -> CatalogueUpdates:
    """Serves what the file of updates says from the first request on; `run` of the result follows it.

    Raises StartupError where the file cannot be read.
    """
    loop = asyncio.get_running_loop()
    engine = loaded.model.engine

    def take_over(live: LiveCatalogue) -> None:
        engine.update(live)
        loop.call_soon_threadsafe(loaded.updated, live)

    updates = CatalogueUpdates(cast("Artifact", engine.artifact), path, take_over)
    try:
        if not await asyncio.to_thread(updates.poll):
            raise FileNotFoundError("there is no such file")
    except OSError as error:
        raise StartupError(
            f"{PREFIX}CATALOGUE_UPDATES: {path} cannot be read ({error}); an empty file will do"
        ) from error
    return updates
