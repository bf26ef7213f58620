"""Peer: LitServe around the same two runs.

    python -m loadtests.peers.litserve_server --artifact DIR --port P --kind history|h
        [--workers N] [--api-servers N] [--batch B] [--wait-ms W] [--threads T]

`--batch 1` is LitServe without batching. Its `fast_queue` (ZeroMQ) does nothing in 0.2.19 (Lightning-AI/LitServe #751).
"""

from __future__ import annotations

import argparse
from typing import Any

import litserve  # type: ignore[import-not-found]  # only in its own environment

from loadtests.peers.ranker import Ranker


class Recommend(litserve.LitAPI):  # type: ignore[misc]  # untyped base
    """One model process; LitServe's queue passes requests on as plain dictionaries."""

    artifact: str
    threads: int
    kind: str

    def setup(self, device: Any) -> None:  # noqa: ARG002 - LitServe's signature
        """Opens the artefact in a worker process."""
        ranker = Ranker.open(self.artifact, self.threads)
        self.rank = ranker.from_history if self.kind == "history" else ranker.from_h

    def predict(self, x: Any) -> Any:
        """Answers one body, or a batch of them."""
        return self.rank(x) if self.max_batch_size > 1 else self.rank([x])[0]


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=("history", "h"), required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--api-servers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--wait-ms", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    api = Recommend(max_batch_size=given.batch, batch_timeout=given.wait_ms / 1000.0, api_path="/recommend")
    api.artifact, api.threads, api.kind = given.artifact, given.threads, given.kind
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=given.workers, disable_openapi_url=True)
    server.run(
        host="127.0.0.1",
        port=given.port,
        num_api_servers=given.api_servers,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    main()
