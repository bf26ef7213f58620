"""Cases of the decoder to time: a list, its graph with and without the constraint, one step of the constraint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from loadtests.engine.paired_timing import Timed
from loadtests.engine.static_decoding import StaticIndex, our_step, static_step
from loadtests.engine.unconstrained_decoder import free_shape, plain_tables, write_free_decoder
from model.network.config import NetworkConfig
from model.network.gpt4rec import GPT4Rec
from service.artifact.array_types import Array
from service.artifact.features import GAP_UNKNOWN
from service.artifact.graphs.run_sizes import RunSizes
from service.artifact.trie import Trie
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, ListRequest
from service.signals.item_values import ItemValues

K, BEAM, NARROW = 10, Decoding("beam", beam_width=5), Decoding("beam", beam_width=1)
STATES = 64
# As many as a few tables of neighbours give for the newest events of a user: more than a list takes into account.
SIGNALS = 2000


def jobs(engine: Engine, seed: int = 0, decoding: Decoding = BEAM) -> list[DecodeJob]:
    """Returns lists to make, from random hidden states, for users with signals of `SIGNALS` random items."""
    rng = np.random.default_rng(seed)
    network = engine.artifact.network
    context = np.zeros(network["n_slots"], np.int64)
    h = rng.standard_normal((STATES, network["d_model"])).astype(np.float32)
    return [
        DecodeJob(
            h=one,
            request=ListRequest(
                context=context, gap_ms=GAP_UNKNOWN, decoding=decoding, k=K, signals=_signals(rng, network["n_items"])
            ),
        )
        for one in h
    ]


def _signals(rng: np.random.Generator, n_items: int) -> ItemValues:
    items = np.unique(rng.integers(0, n_items, SIGNALS))
    return ItemValues(items, rng.exponential(size=len(items)).astype(np.float32))


def decode_case(engine: Engine) -> Timed:
    """Returns a case that decodes one list."""
    asked = jobs(engine)

    def one(number: int) -> object:
        listed = engine.decode([asked[number % STATES]])[0]
        if isinstance(listed, Exception):
            raise listed
        return listed

    return one


class Graph:
    """A graph on one thread with everything but the hidden state bound."""

    def __init__(self, path: Path, feeds: Mapping[str, Any]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        names = {value.name for value in self._session.get_inputs()}
        self._kept = {}
        for name, value in feeds.items():
            if name in names:
                on_cpu = isinstance(value, ort.OrtValue)
                self._kept[name] = (
                    value if on_cpu else ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), "cpu", 0)
                )
                self._binding.bind_ortvalue_input(name, self._kept[name])
        self._outputs = [output.name for output in self._session.get_outputs()]
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")

    def __call__(self, h: Array) -> dict[str, Array]:
        """Returns the outputs by name."""
        value = ort.OrtValue.ortvalue_from_numpy(h, "cpu", 0)
        self._binding.bind_ortvalue_input("h", value)
        self._session.run_with_iobinding(self._binding)
        return {name: out.numpy() for name, out in zip(self._outputs, self._binding.get_outputs(), strict=True)}


def constraint_cases(engine: Engine, folder: Path, decoding: Decoding = BEAM) -> dict[str, Timed]:
    """Returns runs of the decoder graph with and without the trie over the same states, at the width of `decoding`.

    "off" has no trie in its graph; "plain tables" is the served graph over the whole code space.
    """
    asked = jobs(engine, decoding=decoding)
    engine.set_run_sizes(RunSizes())  # the decoder without a trie keeps what is planned at every level
    feeds = _feeds_of(engine, asked[0])
    config = NetworkConfig.from_json(dict(engine.artifact.network))
    free = folder / f"free-{config.n_items}.onnx"
    weights = {name: tensor.numpy() for name, tensor in _random_network(config).state_dict().items()}
    write_free_decoder(config, weights, free)
    width = asked[0].request.run_width
    # Whatever belongs to no level: the plain tables replace the rest, and the free decoder does not read it.
    given = {**feeds, "n_items": np.array([config.n_items], np.int64), **free_shape(config, width)}
    served = engine.artifact.folder / "decoder.onnx"
    graphs = {
        "on": Graph(served, feeds),
        "off": Graph(free, given),
        "plain tables": Graph(served, given | plain_tables(config, width)),
    }
    rows = [job.h[None].copy() for job in asked]
    return {name: lambda number, run=graph: run(rows[number % STATES]) for name, graph in graphs.items()}  # type: ignore[misc]


def _random_network(config: NetworkConfig) -> GPT4Rec:
    """Builds a random network; only its decoder is used, so a small item table suffices."""
    import torch

    small = NetworkConfig.from_json(config.to_json() | {"n_items": 2})
    return GPT4Rec(small, torch.zeros((2, config.levels), dtype=torch.int64)).eval()


def _feeds_of(engine: Engine, job: DecodeJob) -> dict[str, Any]:
    """Records everything that the engine's decoder feeds to the graph for a job."""
    seen: dict[str, Any] = {}
    # No public method shows the feeds of a run.
    decoder = engine._decoder  # noqa: SLF001
    run = decoder._run  # noqa: SLF001

    def watch(sampled: bool, feeds: Any, fixed: Any, *rest: Any) -> Any:
        for group in fixed:
            seen.update(group)
        seen.update(feeds)
        return run(sampled, feeds, fixed, *rest)

    decoder._run = watch  # noqa: SLF001
    try:
        engine.decode([job])
    finally:
        decoder._run = run  # noqa: SLF001
    return seen


def count_runs(engine: Engine, job: DecodeJob) -> int:
    """Returns how many graph runs the engine makes for one list."""
    # No public method shows the runs either.
    decoder = engine._decoder  # noqa: SLF001
    run, made = decoder._run, []  # noqa: SLF001

    def counted(*given: Any) -> Any:
        made.append(given)
        return run(*given)

    decoder._run = counted  # noqa: SLF001
    try:
        engine.decode([job])
    finally:
        decoder._run = run  # noqa: SLF001
    return len(made)


def step_cases(trie: Trie, code_sizes: Sequence[int], width: int, level: int) -> dict[str, Timed]:
    """Returns one step from nodes of `level`, this decoder's and STATIC's, over the same beams."""
    rng = np.random.default_rng(level)
    vocabulary = max(code_sizes)
    index = StaticIndex.of(trie, vocabulary)
    ours, theirs = our_step(trie, level, code_sizes), static_step(index, level)
    nodes = [rng.integers(0, trie.n_nodes[level - 1], width) for _ in range(STATES)]
    states = [index.state(trie, level, node) for node in nodes]
    log_prob = rng.standard_normal((width, vocabulary)).astype(np.float32)
    return {
        f"ours, level {level}": lambda number: ours(log_prob, nodes[number % STATES]),
        f"STATIC, level {level}": lambda number: theirs(log_prob, states[number % STATES]),
    }
