"""The compared systems: how each is started, its requests, the settings to try, and what it cannot do."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loadtests.harness.served_process import NOTHING_KEPT
from loadtests.peers import environments

K = 10
OURS = "gpt4rec"
ENCODE_DECODE = "encode + decode"
DECODE_ONLY = "decode only"
ONE_BY_ONE = "the notebook way: one hypothesis at a time"
BATCHED_BEAM = "batched over the beam"

Settings = Mapping[str, int | float]
Check = Literal["same items", "valid items"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A user with the events of the history, oldest first; `h` [d] is the output of the encoder for them."""

    user_id: str
    items: tuple[str, ...]
    types: tuple[str, ...]
    times_ms: tuple[int, ...]
    h: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """What a server is started with: artefact, training run and scratch folder."""

    artifact: Path
    run: Path | None
    scratch: Path


@dataclass(frozen=True, slots=True)
class System:
    """One row of the comparison. The fastest of the settings `tried` is used; the first is the default."""

    name: str
    variant: str
    environment: str | None
    path: str
    body: Callable[[Subject], dict[str, Any]]
    command: Callable[[str, Place, int, Settings], list[str]]
    tried: tuple[Settings, ...]
    cannot: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    check: Check = "same items"
    needs_run: bool = False
    slow: bool = False  # its p99 is above the limit at any rate: measured one request at a time

    @property
    def key(self) -> str:
        """Name of the row."""
        return f"{self.name}, {self.variant}"

    @property
    def is_ours(self) -> bool:
        """Whether the row is this service."""
        return self.name == OURS

    def python(self) -> str:
        """Returns the interpreter of the system."""
        return sys.executable if self.environment is None else str(environments.python(self.environment))

    def environ(self, place: Place) -> dict[str, str]:
        """Returns the environment variables of its process."""
        if not self.is_ours:
            return environments.environment(BENTOML_HOME=str(place.scratch / "bentoml"), BENTOML_DO_NOT_TRACK="true")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GPT4REC_")}
        # A list that was kept would not be decoded, as the peers' are.
        return inherited | {"PYTHONPATH": str(environments.ROOT), **NOTHING_KEPT}


def by_user(subject: Subject) -> dict[str, Any]:
    """Returns the body that names a user."""
    return {"user_id": subject.user_id, "k": K, "decoding": {"strategy": "beam", "beam_width": 5}}


def by_history(subject: Subject) -> dict[str, Any]:
    """Returns the body with the events of a user."""
    return {"items": subject.items, "types": subject.types, "times_ms": subject.times_ms, "k": K}


def by_h(subject: Subject) -> dict[str, Any]:
    """Returns the body with the prepared state of a user."""
    h = base64.b64encode(subject.h.astype(np.float32).tobytes()).decode()
    return {"h": h, "seen": subject.items, "last_ms": subject.times_ms[-1], "k": K}


def stored_events(subject: Subject) -> list[dict[str, Any]]:
    """Returns the history as `/events` accepts it."""
    rows = zip(subject.items, subject.types, subject.times_ms, strict=True)
    return [{"user_id": subject.user_id, "item_id": i, "type": t, "timestamp": ms} for i, t, ms in rows]


def _flags(settings: Settings) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _ours(python: str, place: Place, port: int, settings: Settings) -> list[str]:
    # A folder of its own for every start: no log of an earlier round is loaded.
    data = place.scratch / f"valkey-{port}"
    return [
        python, "-m", "service.cli", "serve", "--artifact", str(place.artifact), "--port", str(port), "--redis",
        "embedded", "--data-dir", str(data), "--log-level", "warning", *_flags(settings),
    ]  # fmt: skip


def _peer(module: str, *more: str) -> Callable[[str, Place, int, Settings], list[str]]:
    def command(python: str, place: Place, port: int, settings: Settings) -> list[str]:
        run = ["--run", str(place.run)] if module == "torch_server" else []
        return [
            python, "-m", f"loadtests.peers.{module}", "--artifact", str(place.artifact), "--port", str(port),
            *run, *more, *_flags(settings),
        ]  # fmt: skip

    return command


def _batched(body: Callable[[Subject], dict[str, Any]]) -> Callable[[Subject], dict[str, Any]]:
    """Wraps a body in a list of one: BentoML's batchable routes take a list."""
    return lambda subject: {"bodies": [body(subject)]}


NO_STATE = "keeps no state: the history comes with every request"
NO_H = "keeps no state: somebody else has to encode, keep h and send it"
NO_LADDER = "no fallback: an error or a late answer where the model fails or is slow"
NO_BUDGET = "no budget of a request: at most a time-out that ends in an error"
NO_FILTERS = "no filters by category or stock"
_COMMON = (NO_LADDER, NO_BUDGET, NO_FILTERS)

# The first of each is what was fastest when all were tried: what is taken where `--tune` has not been run.
_LITSERVE = (
    {"workers": 2, "api-servers": 2, "batch": 1, "threads": 1},
    {"workers": 1, "api-servers": 1, "batch": 1, "threads": 1},
    {"workers": 2, "api-servers": 1, "batch": 1, "threads": 1},
    {"workers": 1, "api-servers": 1, "batch": 16, "wait-ms": 1, "threads": 1},
    {"workers": 1, "api-servers": 1, "batch": 32, "wait-ms": 5, "threads": 1},
    {"workers": 1, "api-servers": 2, "batch": 16, "wait-ms": 1, "threads": 1},
    {"workers": 2, "api-servers": 2, "batch": 8, "wait-ms": 1, "threads": 1},
    {"workers": 1, "api-servers": 1, "batch": 1, "threads": 2},
)
_BENTOML = (
    {"workers": 2, "batch": 16, "latency-ms": 50, "threads": 1},
    {"workers": 1, "batch": 1, "service-threads": 1, "threads": 1},
    {"workers": 1, "batch": 1, "service-threads": 2, "threads": 1},
    {"workers": 2, "batch": 1, "service-threads": 1, "threads": 1},
    {"workers": 2, "batch": 1, "service-threads": 2, "threads": 1},
    {"workers": 1, "batch": 1, "service-threads": 1, "threads": 2},
    {"workers": 1, "batch": 32, "latency-ms": 50, "threads": 1},
)
_FASTAPI = (
    {"workers": 2, "threads": 1},
    {"workers": 1, "threads": 1},
    {"workers": 1, "threads": 1, "pool": 2},
    {"workers": 2, "threads": 1, "pool": 1},
    {"workers": 1, "threads": 2, "pool": 1},
)


def systems() -> list[System]:
    """Returns every row, ours first."""
    rows = [_ours_with(workers) for workers in (1, 2)]
    for name, module, tried in (
        ("litserve", "litserve_server", _LITSERVE),
        ("bentoml", "bentoml_server", _BENTOML),
        ("fastapi", "fastapi_server", _FASTAPI),
    ):
        for variant, kind in ((ENCODE_DECODE, "history"), (DECODE_ONLY, "h")):
            history = kind == "history"
            rows.append(
                System(
                    name,
                    variant,
                    name,
                    "/recommend" if history or name == "litserve" else "/decode",
                    by_history if history else by_h,
                    _peer(module, *(("--kind", kind) if name == "litserve" else ())),
                    tried,
                    cannot=(NO_STATE if history else NO_H, *_COMMON),
                )
            )
    return [*rows, *(_torch(beam) for beam in ("one-by-one", "batched")), *(_generate(beams) for beams in (10, 32))]


def _torch(beam: str) -> System:
    calls = {"one-by-one": ONE_BY_ONE, "batched": BATCHED_BEAM}
    return System(
        "torch eager",
        calls[beam],
        "torch",
        "/recommend",
        by_history,
        _peer("torch_server", "--beam", beam),
        _FASTAPI,
        cannot=(NO_STATE, *_COMMON),
        notes=("FastAPI with a thread, the run's weights, beam search written in Python over the trie",),
        needs_run=True,
    )


def _ours_with(workers: int) -> System:
    return System(
        OURS,
        f"warm users, embedded Valkey, workers {workers}",
        None,
        "/recommend",
        by_user,
        _ours,
        ({"workers": workers},),
        notes=(
            "state stored, user_id in the body",
            "defaults but for the log level, and nothing is kept; 99 % of the lists must be full",
        ),
    )


def _generate(beams: int) -> System:
    return System(
        "HF generate",
        f"GPT-2 of the same size, {beams} beams",
        "transformers",
        "/recommend",
        by_history,
        _peer("transformers_server", "--beams", str(beams)),
        ({"threads": 2}, {"threads": 1}),
        cannot=(NO_STATE, "does not leave seen items out: a forbidden last token would end a beam", *_COMMON),
        notes=("random weights: a figure of speed only", "prefix_allowed_tokens_fn over the trie of the artefact"),
        check="valid items",
        slow=True,
    )


def request_body(system: System, subject: Subject, settings: Settings) -> dict[str, Any]:
    """Returns the request of a system with these settings."""
    batched = system.name == "bentoml" and settings.get("batch", 1) > 1
    return (_batched(system.body) if batched else system.body)(subject)


def listed_items(answer: Any) -> list[str]:
    """Returns the item ids of an answer, best first.

    Raises:
        LookupError: If the answer lacks a field.
        TypeError: If the answer has another shape.
    """
    one = answer[0] if isinstance(answer, list) else answer
    return [str(item["item_id"]) for item in one["items"]]
