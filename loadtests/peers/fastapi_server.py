"""Peer: a plain FastAPI route that runs the graphs in a thread, without batching, state or fallback.

python -m loadtests.peers.fastapi_server --artifact DIR --port P [--workers N] [--threads T] [--pool P]
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from fastapi import FastAPI

from loadtests.peers.plain import History, Prepared, pool, serve
from loadtests.peers.ranker import Ranker

ARTIFACT, THREADS = "PEER_ARTIFACT", "PEER_THREADS"


def create_app() -> FastAPI:
    """Returns the app of a worker process."""
    ranker = Ranker.open(os.environ[ARTIFACT], int(os.environ[THREADS]))
    app = FastAPI(lifespan=pool)

    @app.post("/recommend")
    async def recommend(body: History) -> dict[str, Any]:
        return (await asyncio.to_thread(ranker.from_history, [body.__dict__]))[0]

    @app.post("/decode")
    async def decode(body: Prepared) -> dict[str, Any]:
        return (await asyncio.to_thread(ranker.from_h, [body.__dict__]))[0]

    return app


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pool", type=int, default=0)
    given = parser.parse_args()
    os.environ |= {ARTIFACT: given.artifact, THREADS: str(given.threads)}  # worker processes read them
    serve("loadtests.peers.fastapi_server:create_app", given.port, given.workers, given.pool)


if __name__ == "__main__":
    main()
