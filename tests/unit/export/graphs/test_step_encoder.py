"""Encoders that are exported from their `step`: the graph equals torch, and streaming equals one pass."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from export import artifact_writer
from export.graphs import step_encoder
from export.graphs.graph_writer import GraphDtype, graph_shape
from export.parity_gate import TOLERANCE, Probe
from model.network.config import SIZES, NetworkConfig
from model.network.encoders.base import Events
from model.network.encoders.registry import ENCODERS, encoder_class, reads, receptive_field, state_layout, streams
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encoder_input
from model.reference.additive_attention import gradient_shares, memory_read
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.state_layout import StateLayout
from service.artifact.manifest import EXPLAINER
from service.artifact.session_marks import mark_number, mark_of
from service.engine.encode import step_explainer
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from service.engine.onnx_session import GraphSession
from service.engine.placement import Placement
from service.history import state_blob
from service.history.state_blob import VersionedState
from service.lifecycle import canary
from service.metrics.service_metrics import value_of
from service.schemas.list_answers import RecommendAnswer
from service.schemas.playground_answers import WhyAnswer
from service.store.log_version import VERSION_LENGTH
from service.store.records import Subject
from tests.support.aio import asynchronous
from tests.support.artifacts import random_parts
from tests.support.fakes import FakeEngine
from tests.support.histories import full_encode, random_history
from tests.support.networks import random_network
from tests.support.serving import serving
from tests.support.valkey import Valkey
from tests.unit.export.graphs.test_graph_interface import interface_of
from tests.unit.export.graphs.test_graph_kernels import missing_kernels, value_types

N_ITEMS = 40
CHECKED = settings(max_examples=12, deadline=None, derandomize=True)


def small(encoder: str) -> NetworkConfig:
    """The default size, and values of the data that a state does not depend on."""
    return NetworkConfig(
        n_items=100, code_sizes=(10, 10), n_types=6, n_context_rows=1, n_slots=1, encoder=encoder, **SIZES["small"]
    )


NAMES = tuple(name for name in ENCODERS if name != artifact_writer.OWN and encoder_class(name).streams)
# torch takes seconds to trace an encoder, so only this one is: it has arrays by row and of fixed size, of three types,
# and a memory to show. `step` of every encoder is checked in torch, and the export's parity gate compares the graphs of
# each with torch.
TRACED: dict[str, Any] = {"encoder": "memory_bank"}
# An encoder whose sessions are those that events name.
BY_NAME: dict[str, Any] = {"encoder": "hierarchy", "session_ids": True}
START_MS = 1_700_000_000_000


class Served:
    """A network, its traced graph, and its artefact that has passed the parity gate."""

    def __init__(self, model: GPT4Rec, root: Path) -> None:
        self.model = model
        traced: list[onnx.ModelProto] = []

        def once(model: GPT4Rec) -> onnx.ModelProto:
            if not traced:
                traced.append(original(model))
            return traced[0]

        original = step_encoder.trace_step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_encoder, "trace_step", once)
            probes = [Probe(history(n, n), {"age": "old"} if n % 2 else {}) for n in (0, 1, 5, 40)]
            folder, result = artifact_writer.export(random_parts(self.model), root, "float32", probes)
        assert result.failures == []
        self.traced = traced[0]
        self.artifact = Artifact.open(folder)
        self.engine = Engine(self.artifact, device="cpu", threads=1)
        self.tolerance = tolerance(self.engine.state_layout)

    def stream(self, events: EventArrays, splits: Sequence[int], engine: Engine | None = None) -> EncoderState:
        state: EncoderState | None = None
        for low, high in itertools.pairwise([0, *sorted(set(splits)), len(events)]):
            state = encoded(engine or self.engine, [(state, part(events, low, high))])[0]
        assert state is not None
        return state

    def whole(self, events: EventArrays) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return full_encode(self.model, self.artifact.vocabulary, events)


def tolerance(layout: StateLayout) -> float:
    """A stored number may round the other way if two computations differ in the last bit."""
    stored = {array.dtype for array in layout.arrays}
    return 1e-1 if "int8" in stored else 5e-3 if "float16" in stored else 2e-5


@torch.no_grad()
def stepped(
    model: GPT4Rec, events: EventArrays, splits: Sequence[int], padding: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """h after the last of the events, which `step` adds chunk by chunk."""
    layout, table = state_layout(model.config), model.item_table()
    state = {one.name: torch.zeros((1, *one.shape), dtype=getattr(torch, one.dtype)) for one in layout.arrays}
    n_valid, h, before = 0, torch.empty(0), int(events.time_ms[0])
    for low, high in itertools.pairwise([0, *sorted(set(splits)), len(events)]):
        n = high - low
        item, type_, time_ms = (
            torch.from_numpy(np.pad(column[low:high], (0, padding)))[None]
            for column in (events.item, events.type, events.time_ms)
        )
        previous_ms = torch.cat([torch.tensor([[before]]), time_ms[:, :-1]], dim=1)
        items, features = model.embed(table, item, type_, time_ms, previous_ms)
        session = None
        if events.session is not None:
            session = torch.from_numpy(np.pad(events.session[low:high], (0, padding)))[None]
        one = Events(
            type_, time_ms, items, features, torch.tensor([n]), session=session, previous_ms=previous_ms,
            n_valid=torch.tensor([n_valid]),
        )  # fmt: skip
        states, state = model.encoder.step(items + features, one, state)
        assert {name: (array.dtype, array.shape[1:]) for name, array in state.items()} == {
            array.name: (getattr(torch, array.dtype), array.shape) for array in layout.arrays
        }
        h, n_valid, before = states[0, n - 1], min(n_valid + n, layout.window), int(events.time_ms[high - 1])
    last: np.ndarray[Any, np.dtype[np.float32]] = h.numpy()
    return last


def encoded(engine: Engine, rows: Sequence[tuple[EncoderState | None, EventArrays]]) -> list[EncoderState]:
    jobs = [EncodeJob(state=state, events=events, from_start=state is None) for state, events in rows]
    states = engine.encode(jobs)
    for state in states:
        assert isinstance(state, EncoderState), state
    return [state for state in states if isinstance(state, EncoderState)]


def history(seed: int, n: int) -> EventArrays:
    return random_history(np.random.default_rng(seed), n, N_ITEMS)


def with_sessions(seed: int, n: int) -> EventArrays:
    """A history whose events name one of three sessions, or none."""
    return replace(history(seed, n), session=np.random.default_rng(seed).integers(0, 4, n))


def part(events: EventArrays, low: int, high: int) -> EventArrays:
    return events.at(slice(low, high))


@pytest.fixture(scope="module", params=[*({"encoder": name} for name in NAMES), BY_NAME], ids=[*NAMES, "by name"])
def model(request: pytest.FixtureRequest) -> GPT4Rec:
    return random_network(**request.param, layers=1, scale=1.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(random_network(**TRACED, layers=1, scale=1.0), tmp_path_factory.mktemp("artifact"))


@CHECKED
@given(
    n=st.integers(1, 200),
    seed=st.integers(0, 10**6),
    splits=st.lists(st.integers(1, 199), max_size=8),
    padding=st.integers(0, 3),
)
def test_steps_over_any_split_give_what_one_pass_gives(
    model: GPT4Rec, n: int, seed: int, splits: list[int], padding: int
) -> None:
    vocabulary = random_parts(model).vocabulary
    events = with_sessions(seed, n) if vocabulary.reads_sessions else history(seed, n)
    h = stepped(model, vocabulary.with_start(events), [split for split in splits if split <= n], padding)
    np.testing.assert_allclose(h, full_encode(model, vocabulary, events), atol=tolerance(state_layout(model.config)))


@CHECKED
@given(n=st.integers(1, 200), seed=st.integers(0, 10**6), splits=st.lists(st.integers(1, 199), max_size=8))
def test_streaming_state_equals_full_encode_of_a_step(served: Served, n: int, seed: int, splits: list[int]) -> None:
    events = history(seed, n)
    state = served.stream(events, [split for split in splits if split < n])
    np.testing.assert_allclose(state.h, served.whole(events), atol=served.tolerance)
    assert state.n_valid == min(n + 1, served.engine.state_layout.window)
    assert state.fits(served.engine.state_layout) and state.last_ms == events.time_ms[-1]


def test_onnx_equals_torch_of_a_step_in_batches_alone_and_padded(served: Served) -> None:
    histories = [history(n, n) for n in (1, 2, 3, 9, 30, 70)]
    wanted = [served.whole(events) for events in histories]
    for engine in (served.engine, Engine(served.artifact, device="cpu", threads=1, pad=True)):
        firsts = encoded(engine, [(None, part(events, 0, len(events) // 2)) for events in histories[1:]])
        rest = [(state, events.after(len(events) // 2)) for state, events in zip(firsts, histories[1:], strict=True)]
        states = encoded(engine, [(None, histories[0]), *rest])
        for state, h in zip(states, wanted, strict=True):
            np.testing.assert_allclose(state.h, h, atol=served.tolerance)


def test_its_artefact_declares_the_layout_of_its_states(served: Served) -> None:
    assert served.artifact.manifest["streaming"] is True and served.artifact.explains
    assert served.artifact.state_layout == state_layout(served.model.config) == served.engine.state_layout
    canary.check(served.engine)
    served.engine.warm_up()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_the_default_size_takes_at_most_24_kib(name: str) -> None:
    assert state_layout(small(name)).bytes_max <= 24 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_every_encoder_comes_back_from_its_blob(name: str) -> None:
    layout, rng = state_layout(small(name)), np.random.default_rng(0)
    arrays = {one.name: (rng.normal(size=one.shape) * 9).astype(one.dtype) for one in layout.arrays}
    state = EncoderState(arrays, layout.window, rng.normal(size=layout.hidden).astype(np.float32))
    packed = state_blob.pack(VersionedState.of(state, "0" * VERSION_LENGTH, 5.0), layout)
    read = state_blob.unpack(packed, layout)
    assert read is not None and read.state is not None and len(packed) <= 24 * 1024
    for one, array in arrays.items():
        np.testing.assert_array_equal(read.state.arrays[one], array)
    others = [state_layout(small(other)) for other in NAMES if other != name]
    assert all(state_blob.unpack(packed, other) is None for other in others)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_step_graph_has_its_interface_and_cuda_kernels_at_every_precision(
    served: Served, dtype: GraphDtype, tmp_path: Path
) -> None:
    config = served.model.config
    graph = step_encoder.step_graph(served.model, served.traced, dtype)
    onnx.save(graph, tmp_path / "encoder.onnx")
    assert interface_of(tmp_path / "encoder.onnx") == encoder_interface.step_encoder(
        graph_shape(config, dtype), state_layout(config)
    )
    explainer = step_encoder.step_graph(served.model, served.traced, dtype, explains=True)
    onnx.save(explainer, tmp_path / EXPLAINER)
    assert interface_of(tmp_path / EXPLAINER) == encoder_interface.step_explainer(
        graph_shape(config, dtype), state_layout(config)
    )
    for made in (graph, explainer):
        if dtype != "int8":  # int8 graphs are not served by CUDA
            assert missing_kernels(made) == []
        assert "double" not in value_types(made).values()
        assert not {node.op_type for node in made.graph.node} & {"Loop", "If", "Scan"}
    exact_weights = {one.name for one in graph.graph.initializer if one.data_type == TensorProto.FLOAT}
    products = [node.input[1] for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert bool(exact_weights & {*products}) == (dtype == "float32"), "a weight of a product is stored in full"
    session = GraphSession(tmp_path / "encoder.onnx", Placement("cpu", 1, pad=False))
    feeds = feeds_of(served, dtype)
    exact = GraphSession(served.artifact.folder / "encoder.onnx", Placement("cpu", 1, pad=False)).run(
        feeds_of(served, "float32")
    )
    np.testing.assert_allclose(session.run(feeds)["h"], exact["h"], atol=10 * TOLERANCE[dtype])


def test_the_encoder_has_nothing_of_its_explainer(served: Served) -> None:
    encoder = step_encoder.step_graph(served.model, served.traced, "float32").graph
    produced = {name for node in encoder.node for name in node.output}
    used = {name for node in encoder.node for name in node.input} | {one.name for one in encoder.output}
    assert produced <= used and names.AMOUNT not in used


def test_encoders_that_show_their_memory_have_outputs_for_it() -> None:
    for name in NAMES:
        shape, layout = graph_shape(small(name), "float32"), state_layout(small(name))
        more = len(encoder_interface.step_explainer(shape, layout).outputs)
        more -= len(encoder_interface.step_encoder(shape, layout).outputs)
        assert (more > 0) == encoder_class(name).shows_memory, name


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("n", [1, 9, 10, 40])
def test_events_have_the_shares_of_torchs_gradient_and_those_before_them_one_together(
    served: Served, n: int, pad: bool
) -> None:
    """The receptive field has ten events; the start token is one."""
    engine = Engine(served.artifact, device="cpu", threads=1, pad=pad)
    reach, got = receptive_field(served.model.config), engine.explain(history(n, n), from_start=True)
    events = served.artifact.vocabulary.with_start(history(n, n))
    want = gradient_shares(served.model, events, newest=reach).numpy()
    started = [got.start] if n < reach else []
    assert got.method == "gradient" and len(got.weight) == min(n, reach)
    assert [got.earlier, *started, *got.weight] == pytest.approx(want, abs=2e-2)
    assert (got.earlier > 0) == (n >= reach)
    assert got.h == pytest.approx(served.whole(history(n, n)), abs=served.tolerance)


@pytest.mark.parametrize("most", [None, 16])
def test_what_was_read_from_memory_is_what_torch_says(
    served: Served, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    """Also of a history that is longer than what is shown: then it begins with a state."""
    if most is not None:
        monkeypatch.setattr(step_explainer, "READ_MAX", most)
    for n in (1, 15, 16, 70):
        read = served.engine.explain(history(n, n), from_start=True).memory
        assert read is not None and read.slots is not None and read.sessions is None and read.horizons is None
        want = memory_read(served.model, served.artifact.vocabulary.with_start(history(n, n)))
        assert read.events == pytest.approx(want["events"][-min(n, most or n) :].numpy(), abs=served.tolerance)
        assert read.slots == pytest.approx(want["slots"].numpy(), abs=served.tolerance)


@asynchronous
async def test_a_list_and_the_playground_say_what_the_network_read_from_its_memory(served: Served) -> None:
    ids, vocabulary = served.artifact.catalogue.item_ids, served.artifact.vocabulary
    items, times = [ids[n] for n in (3, 5, 7, 9)], [START_MS + minute * 60_000 for minute in (0, 1, 600, 601)]
    events = [{"item_id": item, "type": "view", "timestamp": t} for item, t in zip(items, times, strict=True)]
    want = memory_read(served.model, vocabulary.with_start(vocabulary.events(items, ["view"] * 4, times)))
    shares, slots = want["events"][1:].numpy(), want["slots"].numpy()
    async with serving(cast("FakeEngine", served.engine), deadline_ms=60_000.0, playground=True) as service:
        answer = await service.recommend(events=events, k=5, explain=True, decoding={"strategy": "beam"})
        told = await service.client.post("/playground/why", json={"events": events[::-1]})
    why = WhyAnswer.model_validate(told.json())
    assert why.memory is not None and why.memory.slots == pytest.approx(slots, abs=served.tolerance)
    assert why.memory.events[::-1] == pytest.approx(shares, abs=served.tolerance)
    assert sum(why.weights) + why.start + why.earlier == pytest.approx(1.0, abs=1e-5)
    because = [item.because for item in RecommendAnswer.model_validate(answer).items]
    by_network = [one for one in because if one is not None and one.memory is not None]
    assert by_network and all(one.event is not None and one.event.by == "gradient" for one in by_network)
    read, best = by_network[0].memory, int(np.argmax(shares))
    assert read is not None and read.event is not None and read.slots == why.memory.slots
    assert (read.event.item_id, read.event.timestamp_ms) == (items[best], times[best])
    assert read.earlier == pytest.approx(1 - shares.sum(), abs=served.tolerance)


def feeds_of(served: Served, dtype: GraphDtype) -> Mapping[str, np.ndarray]:
    """One row of three events after nothing, and one of four."""
    config = served.model.config
    interface = encoder_interface.step_encoder(graph_shape(config, dtype), state_layout(config))
    sizes, rng = {"batch": 2, "events": 4, "rows": N_ITEMS + 2}, np.random.default_rng(0)
    feeds = {
        tensor.name: np.zeros([sizes[n] if isinstance(n, str) else n for n in tensor.shape], tensor.dtype)
        for tensor in interface.inputs
    }
    feeds["item"] = rng.integers(0, N_ITEMS, (2, 4))
    feeds["n_new"] = np.array([3, 4])
    table = served.artifact.item_table
    return feeds | {"item_table": table.astype(feeds["item_table"].dtype)}


def test_an_encoder_that_remembers_is_evaluated_on_all_of_a_history(model: GPT4Rec) -> None:
    remembers = type(model.encoder).remembers_trimmed
    events = history(3, 3 * receptive_field(model.config))
    kept = encoder_input(events, reads(model.config), random_parts(model).vocabulary)
    assert len(kept) == (len(events) + 1 if remembers else receptive_field(model.config))


def test_what_happened_long_before_the_log_begins_is_in_a_state_that_remembers(model: GPT4Rec) -> None:
    events, vocabulary = history(5, 4 * receptive_field(model.config)), random_parts(model).vocabulary
    other = EventArrays(np.concatenate([(events.item[:3] + 7) % N_ITEMS, events.item[3:]]), events.type, events.time_ms)
    moved = np.abs(full_encode(model, vocabulary, events) - full_encode(model, vocabulary, other)).max()
    assert (moved > 1e-6) == type(model.encoder).remembers_trimmed


@asynchronous
async def test_streaming_state_equals_full_encode_of_all_events_when_the_log_is_trimmed(
    served: Served, shared_valkey: Valkey
) -> None:
    await follows_every_event(served, shared_valkey)


async def follows_every_event(served: Served, server: Valkey) -> None:
    """Through the service: events in random batches, some late and some twice, and states that are lost.

    What is stored must equal one pass over all events, also over those that the log no longer keeps.
    """
    rng, truth, now = np.random.default_rng(1), list[tuple[int, int]](), 1_700_000_000_000
    engine, subject = cast("FakeEngine", served.engine), Subject("user", "u")
    vocabulary, layout = served.artifact.vocabulary, served.engine.state_layout
    where: dict[str, Any] = {"redis_url": server.url, "prefix": f"step:{uuid.uuid4().hex}:"}
    async with serving(engine, **where, history_sessions=vocabulary.reads_sessions) as service:
        runtime = service.runtime
        for number in range(12):
            n = int(rng.integers(1, 5))  # fewer than a checkpoint leaves room for
            batch = [(now + 60_000 * (i + 1), int(rng.integers(0, N_ITEMS))) for i in range(n)]
            now = batch[-1][0]
            if number > 1:
                batch += [(truth[-2][0] + 7, int(rng.integers(0, N_ITEMS))), truth[-1]]  # late, and repeated
            events = [
                {"user_id": "u", "item_id": f"i{i}", "type": "view", "timestamp": t, "session_id": session_at(t)}
                for t, i in batch
            ]
            assert (await service.client.post("/events", json={"events": events})).status_code == 200
            truth = sorted({*truth, *batch})
            await service.settled()
            if number % 3 == 2:  # a state that is rebuilt must not have forgotten anything
                runtime.space.states.cache.clear()
            record = await runtime.space.store.read(subject, engine.artifact.encoder_version.name)
            base = state_blob.unpack(record.blob, layout)
            assert base is not None and base.version == record.version
            ids, times = [f"i{i}" for _, i in truth], [t for t, _ in truth]
            whole = vocabulary.events(ids, ["view"] * len(ids), times)
            if vocabulary.reads_sessions:
                whole = replace(whole, session=np.array([mark_number(mark_of(session_at(t))) for t in times]))
            np.testing.assert_allclose(base.h, served.whole(whole), atol=served.tolerance)
        assert len(truth) > len(record.events) == 12
        resumed = value_of(runtime.metrics.state_cache.labels("state", "resumed"))
        assert (resumed > 0) == layout.remembers_trimmed
        assert value_of(runtime.metrics.events.labels("before_checkpoint")) == 0


def session_at(time_ms: int) -> str:
    return f"s{time_ms // 300_000}"


def test_every_encoder_that_streams_declares_a_layout_and_no_other_has_arrays() -> None:
    for name in ENCODERS:
        config = small(name)
        layout = state_layout(config)
        assert layout.extends == streams(config), name
        assert layout.remembers_trimmed == encoder_class(name).remembers_trimmed, name
