"""What changed of each recorded figure of the engine since it was measured before: the words of the table."""

from __future__ import annotations

from collections.abc import Mapping

_LIST = "runs are as wide as the export found they must be, and the request's way is shorter"
_PEERS = "all systems run narrower, and rank by all signals"
_WAY = "the request's way is shorter"
_SAME = "nothing that it measures"

# criterion → what a reader should know where the figure of before stands beside the one of now.
CHANGES: Mapping[str, str] = {
    "1 cpu": f"{_LIST}; the limit is that of `limit 1 cpu in turns` now",
    "1 cpu without Valkey": _LIST,
    "1 cpu in loops": f"{_LIST}; it has a limit now, `limit 1 cpu in loops`",
    "2 rps at p99 ≤ 50 ms": _LIST,
    "2 rps / best of LitServe and BentoML": f"{_PEERS}; the limit is that of `limit 3 …` now",
    "2 rps / FastAPI + thread": f"{_PEERS}; the limit is that of `limit 3 …` now",
    "2 rps / torch eager, batched over the beam": f"{_PEERS}; the limit is that of `limit 3 …` now",
    "2 rps / LitServe, decode only": _PEERS,
    "2 rps / BentoML, decode only": _PEERS,
    "2 rps / FastAPI + thread, decode only": _PEERS,
    "2 rps / torch eager, hypothesis by hypothesis": _PEERS,
    "2 rps / HF generate": _LIST,
    "3 constraint on / off": "what may follow a node is read as one row, late; the limit stays, as `limit 4 …`",
    "3 decode p50 at 1M / at 10k": "what may follow a node is read as one row, late",
    "4 history p50": _WAY,
    "4 history event": _SAME,
    "5 redis blob": _SAME,
    "5 redis log": _SAME,
    "5 redis flood": _SAME,
    "6 reflected": _SAME,
    "6 reflected p50": _LIST,
    "6 reflected p99": _LIST,
    "7 start": _SAME,
    "7 start memory": "lists that are kept may take 16 MiB more under load",
    "7 start torch": _SAME,
    "8 soak errors": "the limit stays, as `limit 7 …`",
    "8 soak growth": "the limit stays, as `limit 7 …`",
    "8 soak /recommend p50": _LIST,
    "8 soak /recommend p99": f"{_LIST}; it may not be above the figure of before now, at a share of a higher capacity",
    "8 soak /events p50": _WAY,
    "8 soak /events p99": _WAY,
}
