"""Peer: a BentoML service around the same two runs.

    python -m loadtests.peers.bentoml_server --artifact DIR --port P
        [--workers N] [--batch B] [--latency-ms L] [--service-threads S] [--threads T]

`--batch 1` is BentoML without its adaptive batching. Access log, metrics and tracing are off.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import bentoml  # type: ignore[import-not-found]  # only in its own environment

from loadtests.peers.ranker import Ranker

_PREFIX = "PEER_"
_WORKERS = int(os.environ.get(_PREFIX + "WORKERS", "1"))
_BATCH = int(os.environ.get(_PREFIX + "BATCH", "1"))
_LATENCY_MS = int(os.environ.get(_PREFIX + "LATENCY_MS", "50"))
_SERVICE_THREADS = int(os.environ.get(_PREFIX + "SERVICE_THREADS", "1"))
_CONFIGURATION: dict[str, Any] = {
    "workers": _WORKERS,
    "threads": _SERVICE_THREADS,
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}


class _Loaded:
    def __init__(self) -> None:
        self.ranker = Ranker.open(os.environ[_PREFIX + "ARTIFACT"], int(os.environ[_PREFIX + "THREADS"]))


class _OneByOne(_Loaded):
    @bentoml.api(route="/recommend")  # type: ignore[untyped-decorator]
    def recommend(self, items: list[str], types: list[str], times_ms: list[int], k: int = 10) -> dict[str, Any]:
        return self.ranker.from_history([{"items": items, "types": types, "times_ms": times_ms, "k": k}])[0]

    @bentoml.api(route="/decode")  # type: ignore[untyped-decorator]
    def decode(self, h: str, seen: list[str], last_ms: int, k: int = 10) -> dict[str, Any]:
        return self.ranker.from_h([{"h": h, "seen": seen, "last_ms": last_ms, "k": k}])[0]


class _Batched(_Loaded):
    @bentoml.api(route="/recommend", batchable=True, max_batch_size=max(2, _BATCH), max_latency_ms=_LATENCY_MS)  # type: ignore[untyped-decorator]
    def recommend(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.ranker.from_history(bodies)

    @bentoml.api(route="/decode", batchable=True, max_batch_size=max(2, _BATCH), max_latency_ms=_LATENCY_MS)  # type: ignore[untyped-decorator]
    def decode(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.ranker.from_h(bodies)


if _BATCH > 1:
    Recommender = bentoml.service(**_CONFIGURATION)(_Batched)
else:
    Recommender = bentoml.service(**_CONFIGURATION)(_OneByOne)


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--latency-ms", type=int, default=50)
    parser.add_argument("--service-threads", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = vars(parser.parse_args())
    os.environ |= {_PREFIX + name.upper(): str(value) for name, value in given.items()}
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    # The service's own processes import this module anew and read the environment.
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "loadtests.peers.bentoml_server:Recommender"]
    command += ["--host", "127.0.0.1", "--port", str(given["port"])]
    os.execv(command[0], command)  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
