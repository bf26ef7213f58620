"""Checks a model on this machine before it is served.

The export has compared the graphs with the trained network, but here they run on another machine, another device and
another version of onnxruntime. So everything that answers depend on is tried once, with every strategy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS, EventArrays
from service.common.errors import ModelError
from service.engine.decoding import ONE_OF_EACH, Decoding
from service.engine.encoder_state import EncoderState
from service.engine.interface import EngineLike
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, ListRequest
from service.engine.run_groups import result_of

_EVENTS = 9
_K = 10
# Largest difference between a state made in two steps and one made in one, relative to the state's largest value. Wide
# enough for half precision on a GPU.
_TOLERANCE = 0.02
_T0_MS, _STEP_MS = 1_700_000_000_000, 60_000


def check(engine: EngineLike) -> None:
    """Encodes and decodes with every strategy, and checks the results.

    Raises:
        ModelError: the message says what the model does wrong.
    """
    n = len(engine.artifact.catalogue.item_ids)
    history = np.unique(np.linspace(0, n - 1, _EVENTS).astype(np.int64))
    whole = _state(engine, None, _events(engine, history), from_start=True)
    half = len(history) // 2
    first_half = _state(engine, None, _events(engine, history[:half]), from_start=True)
    if first_half.extends:
        stepped = _state(engine, first_half, _events(engine, history[half:], half), from_start=False)
        _check_equal(whole.h, stepped.h)
    for h, excluded in ((whole.h, history), (_start(engine).h, history[:0])):
        for decoding in ONE_OF_EACH:
            _check_lists(engine, h, excluded, decoding)


def _check_lists(engine: EngineLike, h: FloatArray, excluded: IntArray, decoding: Decoding) -> None:
    """Checks that the lists of one state are complete, contain only allowed items, and are reproducible."""
    in_stock = engine.artifact.catalogue.allowed({})
    n = len(engine.artifact.catalogue.item_ids)
    allowed = np.ones(n, np.bool_) if in_stock is None else in_stock.copy()
    allowed[excluded] = False
    k = min(_K, int(allowed.sum()))
    if k == 0:
        return
    context = engine.artifact.vocabulary.context.encode({})
    request = ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=decoding, k=k, excluded=excluded, seed=7)
    job = DecodeJob(h=h, request=request)
    first, again = (_decoded(engine, [job])[0] for _ in range(2))
    items = first.items
    if len(items) != k or len(np.unique(items)) != k:
        raise ModelError(f"{decoding.strategy}: returns {len(np.unique(items))} different items instead of {k}")
    if items.min() < 0 or items.max() >= n or not allowed[items].all():
        raise ModelError(f"{decoding.strategy}: returns items that are excluded or not in the catalogue")
    if not np.isfinite(first.scores).all():
        raise ModelError(f"{decoding.strategy}: returns scores that are not finite")
    if not np.array_equal(items, again.items):
        raise ModelError(f"{decoding.strategy}: returns two different lists for the same request and seed")


def _events(engine: EngineLike, items: IntArray, first: int = 0) -> EventArrays:
    ids = engine.artifact.catalogue.item_ids
    times = [_T0_MS + _STEP_MS * (first + position) for position in range(len(items))]
    return engine.artifact.vocabulary.events([ids[item] for item in items.tolist()], ["view"] * len(items), times)


def _state(engine: EngineLike, base: EncoderState | None, events: EventArrays, *, from_start: bool) -> EncoderState:
    job = EncodeJob(state=base, events=events, from_start=from_start and len(events) > 0)
    return result_of(engine.encode([job])[0])


def _start(engine: EngineLike) -> EncoderState:
    return result_of(engine.encode([EncodeJob(events=NO_EVENTS, from_start=True)])[0])


def _decoded(engine: EngineLike, jobs: Sequence[DecodeJob]) -> list[DecodedList]:
    return [result_of(result) for result in engine.decode(jobs)]


def _check_equal(whole: FloatArray, stepped: FloatArray) -> None:
    size = max(1.0, float(np.abs(whole).max()))
    if not float(np.abs(whole - stepped).max()) <= _TOLERANCE * size:  # `not <=`, so that NaN fails too
        raise ModelError("encoding a history in two steps gives another state than encoding it in one")
