"""From an artefact to a model in service: opened, warmed up, and put behind its batchers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from export.artifact import Artifact
from service.batcher import Batcher, BatchLimits
from service.catalogue_updates import CatalogueUpdates, LiveCatalogue
from service.errors import StartupError
from service.jobs import EncodeJob
from service.metrics import Metrics
from service.served import EngineLike, ServedModel, Serving
from service.settings import PREFIX, Settings

_STAGE_OF = {"encoder": "encode", "decoder": "decode", "sampler": "decode"}


async def open_engine(stack: AsyncExitStack, settings: Settings) -> EngineLike:
    from service.engine import Engine

    if settings.artifact is None:
        raise StartupError(f"no artefact to serve: set {PREFIX}ARTIFACT or give --artifact")
    engine: EngineLike = await asyncio.to_thread(
        Engine.open,
        settings.artifact,
        device=settings.device,
        threads=settings.engine_threads or None,
        cuda_graphs=settings.cuda_graphs,
    )
    stack.callback(engine.close)
    return engine


async def start_model(stack: AsyncExitStack, settings: Settings, engine: EngineLike, metrics: Metrics) -> ServedModel:
    """Warms the engine up before anything is accepted, and puts it behind its batchers."""

    def on_graph(graph: str, rows: int, seconds: float) -> None:
        metrics.batch_size.labels(graph).observe(rows)
        metrics.stage_duration.labels(_STAGE_OF[graph]).observe(seconds)

    start_h = await asyncio.to_thread(_warm_up, engine)
    engine.on_graph = on_graph
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
    metrics.model_info.labels(engine.model_version).set(1)
    filter_thread = ThreadPoolExecutor(1, thread_name_prefix="filters")
    stack.callback(filter_thread.shutdown, wait=False, cancel_futures=True)
    return ServedModel.of(engine, encoder, decoder, start_h, filter_thread)


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


async def follow_catalogue(path: Path, engine: EngineLike, serving: Serving) -> CatalogueUpdates:
    """Serves what the file of updates says from the first request on; `run` of the result follows it.

    Raises StartupError where the file cannot be read.
    """
    loop = asyncio.get_running_loop()

    def take_over(live: LiveCatalogue) -> None:
        engine.update(live)
        loop.call_soon_threadsafe(lambda: serving.replace(serving.model.over(live)))

    updates = CatalogueUpdates(cast("Artifact", engine.artifact), path, take_over)
    try:
        if not await asyncio.to_thread(updates.poll):
            raise FileNotFoundError("there is no such file")
    except OSError as error:
        raise StartupError(
            f"{PREFIX}CATALOGUE_UPDATES: {path} cannot be read ({error}); an empty file will do"
        ) from error
    return updates
