"""Request bodies of the plain FastAPI peers, and their fastest uvicorn settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

POOL = "PEER_POOL"


class History(BaseModel):
    """Events oldest first, as three lists of one length."""

    items: list[str]
    types: list[str]
    times_ms: list[int]
    k: int = 10


class Prepared(BaseModel):
    """The output of the encoder for a history: base64 of float32 [d]."""

    h: str
    seen: list[str]
    last_ms: int
    k: int = 10


@asynccontextmanager
async def pool(_: FastAPI) -> AsyncIterator[None]:
    """Returns the threads of `asyncio.to_thread`: as many as requested, or asyncio's default for 0."""
    size = int(os.environ[POOL])
    if size:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(size))
    yield


def serve(factory: str, port: int, workers: int, pool_size: int) -> None:
    """Runs uvicorn; every worker process calls the `factory` to make the app."""
    os.environ[POOL] = str(pool_size)
    uvicorn.run(
        factory,
        factory=True,
        host="127.0.0.1",
        port=port,
        workers=workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
