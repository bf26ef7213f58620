"""The least that a typed FastAPI route costs: the service's own request and response models, and nothing behind them.

    python -m loadtests.criteria.bare --answer FILE --port P

uvicorn runs it with the settings of `service.server`. The answer is one that the service gave, kept as a model:
FastAPI validates the body, and validates and serialises the answer, as it does for every typed route.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvicorn
from fastapi import FastAPI

from service.cli.outermost import run_command
from service.schemas.list_answers import RecommendAnswer
from service.schemas.recommend_request import RecommendRequest


def create(answer: RecommendAnswer) -> FastAPI:
    """Returns an app whose only route answers with `answer`."""
    app = FastAPI()

    @app.post("/recommend")
    async def recommend(body: RecommendRequest) -> RecommendAnswer:  # noqa: ARG001 - it is read, and that is all
        return answer

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main(answer: Annotated[Path, typer.Option()], port: Annotated[int, typer.Option()]) -> None:
    """Serves the same answer to every request."""
    app = create(RecommendAnswer.model_validate(orjson.loads(answer.read_bytes())))
    uvicorn.run(
        app, port=port, loop="uvloop", http="httptools", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=75,
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
