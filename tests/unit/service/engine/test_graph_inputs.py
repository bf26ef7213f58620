"""The engine feeds the graphs what their interface says: every input, in its type and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.graphs.graph_writer import GraphDtype
from export.graphs.history_encoder import WRITERS
from model.network.config import StateDtype
from service.artifact.array_types import Array
from service.artifact.features import GAP_UNKNOWN
from service.artifact.graphs import decoder_interface, encoder_interface
from service.artifact.graphs.graph_interface import GraphShape, Interface, Tensor
from service.engine.decoding import Decoding
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, EncodeJob, ListRequest
from service.engine.onnx_session import GraphSession
from service.signals.item_values import ItemValues
from tests.support.artifacts import random_parts, with_cells, write_artifact
from tests.support.histories import random_history
from tests.support.networks import random_network

N_ITEMS = 40


class Runs:
    """The last run of every graph: what it was fed, and its outputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._last: dict[int, tuple[dict[str, Array], dict[str, Array]]] = {}
        run = GraphSession.run

        def watched(graph: GraphSession, feeds: Mapping[str, Any], fixed: Any = (), *rest: Any) -> Any:
            out = run(graph, feeds, fixed, *rest)
            fed = {name: value for group in (*fixed, feeds) for name, value in group.items()}
            self._last[id(graph)] = {name: as_array(value) for name, value in fed.items()}, out
            return out

        monkeypatch.setattr(GraphSession, "run", watched)

    def check(self, graph: GraphSession, interface: Interface) -> None:
        fed, out = self._last[id(graph)]
        sizes: dict[str, int] = {}
        assert_fits(fed, interface.inputs, sizes)
        assert_fits(out, interface.outputs, sizes)


def as_array(value: Any) -> Array:
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy())


def assert_fits(arrays: Mapping[str, Array], tensors: Sequence[Tensor], sizes: dict[str, int]) -> None:
    """A dimension with a name may have any size, but one in the whole graph: `sizes`."""
    for tensor in tensors:
        array = arrays[tensor.name]
        assert array.dtype.name == tensor.dtype, tensor
        assert array.ndim == len(tensor.shape), tensor
        for wanted, size in zip(tensor.shape, array.shape, strict=True):
            assert size == (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted), tensor


def serve(engine: Engine, rows: int = 3) -> None:
    """Encodes, adds events where that is possible, and decodes under every strategy with filters and exclusions."""
    rng = np.random.default_rng(0)
    jobs = [EncodeJob(events=random_history(rng, 3 + row, N_ITEMS), from_start=True) for row in range(rows)]
    states = states_of(engine.encode(jobs))
    if states[0].extends:
        more = random_history(rng, 2, N_ITEMS)
        states = states_of(engine.encode([EncodeJob(state=s, events=more, from_start=False) for s in states]))
    context = np.zeros(engine.artifact.network["n_slots"], np.int64)
    for strategy in ("beam", "temperature"):
        requests = [
            ListRequest(
                context=context,
                gap_ms=GAP_UNKNOWN,
                decoding=Decoding(strategy),
                k=5,
                filter_id=engine.filter_id({"category": ["a"]}) if row else 0,
                excluded=np.arange(7 * row),
                signals=ItemValues(np.arange(20), np.full(20, row, np.float32)),
                candidates=True,
            )
            for row in range(rows)
        ]
        for result in engine.decode([DecodeJob(h=s.h, request=r) for s, r in zip(states, requests, strict=True)]):
            assert not isinstance(result, Exception), result


def states_of(results: Sequence[EncoderState | Exception]) -> list[EncoderState]:
    for result in results:
        assert isinstance(result, EncoderState), result
    return [result for result in results if isinstance(result, EncoderState)]


@pytest.mark.parametrize("pad", [False, True], ids=["exact", "padded"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "beam alone"])
@pytest.mark.parametrize("state_dtype", ["float32", "float16", "int8"])
def test_every_graph_of_a_streaming_model_is_fed_as_its_interface_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_dtype: StateDtype, dense: bool, pad: bool
) -> None:
    parts = replace(random_parts(random_network(state_dtype=state_dtype)), dense=dense)
    engine = Engine.open(write_artifact(tmp_path, parts), device="cpu", threads=1, pad=pad)
    shape = GraphShape.of(engine.artifact.network, "float32")
    runs = Runs(monkeypatch)
    serve(engine)
    engine.explain(random_history(np.random.default_rng(1), 6, N_ITEMS), from_start=True)
    runs.check(engine._graphs["encoder"], encoder_interface.encoder(shape))
    runs.check(engine._graphs["decoder"], decoder_interface.decoder(shape, dense=dense))
    runs.check(engine._graphs["sampler"], decoder_interface.sampler(shape, dense=dense))
    assert engine._explainer._graph is not None
    runs.check(engine._explainer._graph, encoder_interface.explainer(shape))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_item_vectors_have_the_type_of_the_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: GraphDtype
) -> None:
    engine = Engine.open(write_artifact(tmp_path, random_parts(), dtype), device="cpu", threads=1)
    half = engine._graphs["decoder"].inputs["item_table"] == "tensor(float16)"
    shape = GraphShape.of(engine.artifact.network, "float16" if half else "float32")
    runs = Runs(monkeypatch)
    serve(engine)
    runs.check(engine._graphs["encoder"], encoder_interface.encoder(shape))
    runs.check(engine._graphs["decoder"], decoder_interface.decoder(shape, dense=True))


@pytest.mark.parametrize("pad", [False, True], ids=["exact", "padded"])
def test_candidates_by_cell_are_fed_as_the_interface_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad: bool
) -> None:
    parts = with_cells(random_parts(random_network()), rows=12)
    engine = Engine.open(write_artifact(tmp_path, parts), device="cpu", threads=1, pad=pad)
    shape = GraphShape.of(engine.artifact.network, "float32")
    runs = Runs(monkeypatch)
    serve(engine)
    runs.check(engine._graphs["decoder"], decoder_interface.decoder(shape, dense=False, cells=True))
    runs.check(engine._graphs["sampler"], decoder_interface.sampler(shape, dense=False, cells=True))


@pytest.mark.parametrize("encoder", WRITERS)
def test_an_encoder_of_whole_histories_is_fed_as_its_interface_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    parts = random_parts(random_network(encoder=encoder, window=5))
    engine = Engine.open(write_artifact(tmp_path, parts), device="cpu", threads=1)
    runs = Runs(monkeypatch)
    serve(engine)
    shape = GraphShape.of(engine.artifact.network, "float32")
    runs.check(engine._graphs["encoder"], encoder_interface.history_encoder(shape))


@pytest.mark.parametrize("sizes", [(64,), (7, 9), (3, 4, 2, 5), (64, 64, 128)], ids=str)
def test_levels_that_are_too_large_for_a_table_are_fed_as_the_interface_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    parts = random_parts(random_network(n_items=N_ITEMS, sizes=sizes))
    engine = Engine.open(write_artifact(tmp_path, parts), device="cpu", threads=1)
    runs = Runs(monkeypatch)
    serve(engine)
    shape = GraphShape.of(engine.artifact.network, "float32")
    runs.check(engine._graphs["decoder"], decoder_interface.decoder(shape, dense=True))
    runs.check(engine._graphs["sampler"], decoder_interface.sampler(shape, dense=True))
