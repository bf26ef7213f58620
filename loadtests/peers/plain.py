"""Bodies of the plain FastAPI peers, and how uvicorn runs them: its fastest settings."""

from __future__ import annotations

import uvicorn
from pydantic import BaseModel


class History(BaseModel):
    """Events oldest first, as three lists of one length."""

    items: list[str]
    types: list[str]
    times_ms: list[int]
    k: int = 10


class Prepared(BaseModel):
    """What an encoder had made of a history: base64 of float32 [d]."""

    h: str
    seen: list[str]
    last_ms: int
    k: int = 10


def serve(factory: str, port: int, workers: int) -> None:
    """`factory` names the function that makes the app; every worker process calls it."""
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
