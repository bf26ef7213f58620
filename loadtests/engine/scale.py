"""How the engine scales with the catalogue: `python -m loadtests.engine.scale --out DIR [--sizes 10000,100000]`.

Missing artefacts of these sizes are made first (`loadtests.engine.synthetic_artifact`). All are measured in one run,
and the cases of a comparison take turns, so that other work of the machine affects all of them alike:

- a list from a hidden state (`Engine.decode`, beam 5, k 10, so 64 nodes a level; one row a run), by size
- the constraint on against off: a run of `decoder.onnx`, of the decoder without a trie, and of `decoder.onnx` over all
  paths of codes (`loadtests.engine.unconstrained_decoder`)
- one step of the constraint, this decoder's and STATIC's (`loadtests.engine.static_decoding`)
- in a process of its own for each size: opening the artefact with and without its checksums, memory, the first use of a
  filter, a change of stock, new items taken into the trie, and the fallback rungs
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
import typer

from loadtests.common import results
from loadtests.common.report import table
from loadtests.engine.static_decoding import StaticIndex, our_step, static_step
from loadtests.engine.synthetic_artifact import synthetic_codes, write_synthetic
from loadtests.engine.unconstrained_decoder import free_shape, plain_tables, write_free_decoder
from model.network.config import NetworkConfig
from model.network.gpt4rec import GPT4Rec
from service.artifact.array_types import Array
from service.artifact.features import GAP_UNKNOWN
from service.artifact.trie import Trie
from service.engine.decode.decoder import gap_input
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, ListRequest

SIZES = "10000,100000,1000000"
K, BEAM = 10, Decoding("beam", beam_width=5)
STATES = 64
ROUND = 40
DECODE_LIMIT, CONSTRAINT_LIMIT = 1.5, 1.25

Timed = Callable[[int], object]


def paired(cases: Mapping[str, Timed], rounds: int, per_round: int = ROUND) -> dict[str, dict[str, float]]:
    """Times each case in turns: `per_round` calls of each, `rounds` times.

    Returns:
        Milliseconds: p50 and p95 of all calls, and p50 of the thread's processor time, which excludes other processes.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        for number in range(per_round):
            call(number)
    for round_ in range(rounds):
        order = list(cases.items())
        for name, call in order if round_ % 2 else order[::-1]:
            call(0)  # the others have displaced this case from the caches; that is not its time
            for number in range(per_round):
                began, began_cpu = time.perf_counter(), time.thread_time()
                call(number)
                cpu[name].append((time.thread_time() - began_cpu) * 1000.0)
                taken[name].append((time.perf_counter() - began) * 1000.0)
    return {
        name: {
            "p50": round(float(np.percentile(ms, 50)), 4),
            "p95": round(float(np.percentile(ms, 95)), 4),
            "cpu_p50": round(float(np.percentile(cpu[name], 50)), 4),
        }
        for name, ms in taken.items()
    }


def jobs(engine: Engine, seed: int = 0) -> list[DecodeJob]:
    """Returns lists to make, from random hidden states."""
    rng = np.random.default_rng(seed)
    network = engine.artifact.network
    context = np.zeros(network["n_slots"], np.int64)
    request = ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=BEAM, k=K)
    h = rng.standard_normal((STATES, network["d_model"])).astype(np.float32)
    return [DecodeJob(h=one, request=request) for one in h]


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


def constraint_cases(engine: Engine, folder: Path) -> dict[str, Timed]:
    """Returns runs of the decoder graph with and without the trie over the same states.

    "off" has no trie in its graph; "plain tables" is the served graph over the whole code space.
    """
    asked = jobs(engine)
    feeds = _feeds_of(engine, asked[0])
    config = NetworkConfig.from_json(dict(engine.artifact.network))
    free = folder / f"free-{config.n_items}.onnx"
    weights = {name: tensor.numpy() for name, tensor in _random_network(config).state_dict().items()}
    write_free_decoder(config, weights, free)
    width = asked[0].request.run_width
    given: dict[str, Any] = {
        "h": asked[0].h[None],
        "context": asked[0].request.context[None],
        "gap": np.array([gap_input(asked[0].request.gap_ms)], np.float32),
        "blend": feeds["blend"],
        "item_table": feeds["item_table"],
        "n_items": np.array([config.n_items], np.int64),
        **free_shape(config, width),
    }
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
    decoder = engine._decoder
    run = decoder._run

    def watch(sampled: bool, feeds: Any, fixed: Any, shape: Any, rows: int) -> Any:
        for group in fixed:
            seen.update(group)
        seen.update(feeds)
        return run(sampled, feeds, fixed, shape, rows)

    decoder._run = watch
    try:
        engine.decode([job])
    finally:
        decoder._run = run
    return seen


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


def trie_build_s(n_items: int) -> float:
    """Returns seconds to build the trie of a catalogue on one core; the best of three."""
    codes, _ = synthetic_codes(np.random.default_rng(0), n_items)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        Trie.build(codes)
        taken.append(time.perf_counter() - began)
    return min(taken)


def probed(folder: Path) -> dict[str, Any]:
    """Runs `loadtests.engine.probe` on an artefact, in a process of its own."""
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "loadtests.engine.probe", str(folder)], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def made(root: Path, n_items: int) -> Path:
    """Returns the artefact of a size under `root`, made if it is missing."""
    found = sorted(root.glob(f"synthetic-{n_items}-*"))
    return found[0] if found else write_synthetic(root, n_items)


def measure(root: Path, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Measures everything; returns the content of `scale.json`."""
    folders = {n: made(root, n) for n in sizes}
    probes = {n: probed(folder) for n, folder in folders.items()}
    engines = {n: Engine.open(folder, device="cpu", threads=1) for n, folder in folders.items()}
    decode = paired({str(n): decode_case(engine) for n, engine in engines.items()}, rounds)
    largest = engines[sizes[-1]]
    constraint = {str(n): paired(constraint_cases(engine, root), rounds) for n, engine in engines.items()}
    trie, code_sizes = largest.artifact.trie, largest.artifact.network["code_sizes"]
    steps: dict[str, dict[str, float]] = {}
    for level in range(1, trie.levels):
        steps |= paired(step_cases(trie, code_sizes, jobs(largest)[0].request.run_width, level), rounds)
    shape = {
        str(n): {"nodes": e.artifact.trie.n_nodes, "branching": e.artifact.trie.branching} for n, e in engines.items()
    }
    return {
        "k": K,
        "width": jobs(largest)[0].request.run_width,
        "threads": 1,
        "network": dict(largest.artifact.network) | {"n_items": None},
        "tries": shape,
        "decode_ms": decode,
        "constraint_ms": constraint,
        "step_ms": steps,
        "trie_build_s": {str(n): round(trie_build_s(n), 3) for n in sizes},
        "probes": {str(n): probe for n, probe in probes.items()},
    }


def ratios(found: Mapping[str, Any], sizes: list[int]) -> tuple[float, float]:
    """Returns decode p50 at the largest size ÷ at the smallest, and constraint on ÷ off at the largest."""
    decode, last = found["decode_ms"], str(sizes[-1])
    constraint = found["constraint_ms"][last]
    return decode[last]["p50"] / decode[str(sizes[0])]["p50"], constraint["on"]["p50"] / constraint["off"]["p50"]


def main(
    out: Annotated[Path, typer.Option(help="Folder for the artefacts: about 1.2 GB for a million items.")],
    sizes: Annotated[str, typer.Option(help="Numbers of items, ascending.")] = SIZES,
    rounds: Annotated[int, typer.Option(min=1, help=f"Rounds of {ROUND} calls of each case.")] = 15,
    record: Annotated[bool, typer.Option(help="Write the rows and scale.json to loadtests/results.")] = True,
) -> None:
    """Measures decoding, its constraint, loading and filters by the size of the catalogue."""
    wanted = [int(size) for size in sizes.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    found = measure(out, wanted, rounds)
    growth, constraint = ratios(found, wanted)
    command = f"python -m loadtests.engine.scale --out DIR --sizes {sizes} --rounds {rounds}"
    if record:
        growing = results.row("3 decode p50 at 1M / at 10k", growth, "ratio", command, at_most=DECODE_LIMIT)
        cost = results.row("3 constraint on / off", constraint, "ratio", command, at_most=CONSTRAINT_LIMIT)
        results.record(results.ENGINE, growing)
        results.record(results.ENGINE, cost)
        results.save("scale", found, command=command)
    _print(found, wanted, growth, constraint)


def _print(found: Mapping[str, Any], sizes: list[int], growth: float, constraint: float) -> None:
    from rich.console import Console

    console = Console(width=120)
    names = [str(n) for n in sizes]
    rows: list[list[Any]] = [
        ["decode p50, ms", *(found["decode_ms"][n]["p50"] for n in names)],
        ["constraint on p50, ms", *(found["constraint_ms"][n]["on"]["p50"] for n in names)],
        ["constraint off p50, ms", *(found["constraint_ms"][n]["off"]["p50"] for n in names)],
        ["whole code space p50, ms", *(found["constraint_ms"][n]["plain tables"]["p50"] for n in names)],
        ["trie build, s", *(found["trie_build_s"][n] for n in names)],
    ]
    rows += [[name, *(found["probes"][n].get(name) for n in names)] for name in found["probes"][names[-1]]]
    console.print(table("by items", ["", *names], rows))
    steps = [[name, ms["p50"] * 1000, ms["p95"] * 1000] for name, ms in found["step_ms"].items()]
    console.print(table("one step", ["", "p50 µs", "p95 µs"], steps))
    console.print(f"decode at {names[-1]} / at {names[0]}: {growth:.3f}; constraint on / off: {constraint:.3f}")


if __name__ == "__main__":
    typer.run(main)
