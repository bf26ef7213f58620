"""What a model must be able to do on this machine before it is served.

The export has compared the graphs with the trained network; here they run on another machine, another device and
another onnxruntime. Each thing that answers rest on is tried once, by every strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.common.errors import ModelError
from service.engine.decoding import Decoding
from service.engine.encoder_state import EncoderState
from service.engine.interface import EngineLike
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob

_EVENTS = 9
_K = 10
_STRATEGIES = (
    Decoding("greedy"),
    Decoding("beam"),
    Decoding("top_p", top_p=0.9),
    Decoding("temperature", temperature=1.2),
)
# Between a state in two steps and in one, as a part of the state's size: half precision on a GPU included.
_TOLERANCE = 0.02
_T0_MS, _STEP_MS = 1_700_000_000_000, 60_000

R = TypeVar("R")


def check(engine: EngineLike) -> None:
    """Raises ModelError, whose message says what the model does wrong."""
    n = len(engine.artifact.catalogue.item_ids)
    history = np.unique(np.linspace(0, n - 1, _EVENTS).astype(np.int64))
    whole = _state(engine, None, _events(engine, history), from_start=True)
    half = len(history) // 2
    begun = _state(engine, None, _events(engine, history[:half]), from_start=True)
    if begun.extends:
        stepped = _state(engine, begun, _events(engine, history[half:], half), from_start=False)
        _same(whole.h, stepped.h)
    for h, excluded in ((whole.h, history), (_start(engine).h, history[:0])):
        for decoding in _STRATEGIES:
            _check_lists(engine, h, excluded, decoding)


def _check_lists(engine: EngineLike, h: FloatArray, excluded: IntArray, decoding: Decoding) -> None:
    """Of the lists that one state gives: right, complete, and the same again."""
    allowed = engine.artifact.catalogue.allowed({})
    n = len(engine.artifact.catalogue.item_ids)
    may = np.ones(n, np.bool_) if allowed is None else allowed.copy()
    may[excluded] = False
    k = min(_K, int(may.sum()))
    if k == 0:
        return
    context = engine.artifact.vocabulary.context.encode({})
    job = DecodeJob(h, context, GAP_UNKNOWN, decoding, k, 0, excluded, 7)
    first, again = (_decoded(engine, [job])[0] for _ in range(2))
    items = first.items
    if len(items) != k or len(np.unique(items)) != k:
        raise ModelError(f"{decoding.strategy}: {len(np.unique(items))} different items where {k} were asked for")
    if items.min() < 0 or items.max() >= n or not may[items].all():
        raise ModelError(f"{decoding.strategy}: lists what is excluded, or is not in the catalogue")
    if not np.isfinite(first.scores).all():
        raise ModelError(f"{decoding.strategy}: the scores are not finite")
    if not np.array_equal(items, again.items):
        raise ModelError(f"{decoding.strategy}: the same question has two answers")


def _events(engine: EngineLike, items: IntArray, first: int = 0) -> EventArrays:
    ids = engine.artifact.catalogue.item_ids
    times = [_T0_MS + _STEP_MS * (first + at) for at in range(len(items))]
    return engine.artifact.vocabulary.events([ids[item] for item in items.tolist()], ["view"] * len(items), times)


def _state(engine: EngineLike, base: EncoderState | None, events: EventArrays, *, from_start: bool) -> EncoderState:
    job = EncodeJob(base, events.item, events.type, events.time_ms, from_start and len(events) > 0)
    return _result(engine.encode([job])[0])


def _start(engine: EngineLike) -> EncoderState:
    nothing = np.zeros(0, np.int64)
    return _result(engine.encode([EncodeJob(None, nothing, nothing, nothing, from_start=True)])[0])


def _decoded(engine: EngineLike, jobs: Sequence[DecodeJob]) -> list[DecodedList]:
    return [_result(result) for result in engine.decode(jobs)]


def _same(whole: FloatArray, stepped: FloatArray) -> None:
    size = max(1.0, float(np.abs(whole).max()))
    if not float(np.abs(whole - stepped).max()) <= _TOLERANCE * size:  # what is not a number is not the same either
        raise ModelError("a state that was made in two steps is not the one made in one")


def _result(result: R | Exception) -> R:
    if isinstance(result, Exception):
        raise result
    return result
