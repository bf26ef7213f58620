"""Times the engine without HTTP and Redis: `python -m loadtests.engine.bench --artifact DIR`.

With `--layout`, it measures lists a second with 1 … n threads in a run and 1 … n concurrent callers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import orjson
import typer

from loadtests.common.report import publish, spread, table
from loadtests.engine import thread_layout
from service.artifact.features import GAP_UNKNOWN, START_TYPE, EventArrays
from service.cli.json_report import AsJson, JsonFile, check_target
from service.cli.outermost import run_command
from service.common.errors import ServiceError
from service.engine.decoding import Decoding, Strategy
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, EncodeJob, ListRequest
from service.engine.placement import Device

BATCHES = (1, 8, 32)
WIDTHS = (16, 64, 128)
SAMPLED: tuple[Strategy, int] = ("top_p", 16)
HISTORY = 50
K = 10
LEAST_RUNS = 5
LAYOUT_WIDTH = 64


def histories(engine: Engine, rng: np.random.Generator, batch: int, events: int) -> list[EncodeJob]:
    """Returns jobs of `events` events each, at random items, a day apart."""
    n_items = engine.artifact.trie.n_items
    return [
        EncodeJob(
            events=EventArrays(
                rng.integers(0, n_items, events),
                rng.integers(0, START_TYPE, events),
                1_700_000_000_000 + np.arange(events, dtype=np.int64) * 86_400_000,
            ),
            from_start=True,
        )
        for _ in range(batch)
    ]


def next_events(rng: np.random.Generator, states: Sequence[EncoderState]) -> list[EncodeJob]:
    """Returns one more event for each state."""
    return [
        EncodeJob(
            state=state,
            events=EventArrays(rng.integers(0, 2, 1), rng.integers(0, START_TYPE, 1), np.array([state.last_ms + 1000])),
            from_start=False,
        )
        for state in states
    ]


def lists(
    engine: Engine, states: Sequence[EncoderState], jobs: Sequence[EncodeJob], width: int, strategy: Strategy = "beam"
) -> list[DecodeJob]:
    """Returns a list of `K` for each state, without the items of its history."""
    context = engine.artifact.vocabulary.context.encode({})
    return [
        DecodeJob(
            h=state.h,
            request=ListRequest(
                context=context,
                gap_ms=GAP_UNKNOWN,
                decoding=Decoding(strategy),
                k=K,
                excluded=job.events.item,
                seed=seed,
                width=width,
            ),
        )
        for seed, (state, job) in enumerate(zip(states, jobs, strict=True))
    ]


def time_runs(run: Callable[[], Sequence[Any]], seconds: float) -> list[float]:
    """Returns milliseconds of each run, for about `seconds`; the first run does not count."""
    taken: list[float] = []
    for result in run():
        _checked(result)
    until = time.perf_counter() + seconds
    while len(taken) < LEAST_RUNS or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1000.0)
    return taken


def measure(engine: Engine, *, seconds: float, seed: int = 0) -> list[dict[str, Any]]:
    """Returns an entry for each case: what, width, batch, runs, ms (p50 …), ms_per_row."""
    rng = np.random.default_rng(seed)
    cases: list[tuple[str, int | None, int, Callable[[], Sequence[Any]]]] = []

    def encoding(what: str, batch: int, jobs: Sequence[EncodeJob]) -> None:
        cases.append((what, None, batch, lambda: engine.encode(jobs)))

    def decoding(what: str, width: int, batch: int, jobs: Sequence[DecodeJob]) -> None:
        cases.append((what, width, batch, lambda: engine.decode(jobs)))

    for batch in BATCHES:
        jobs = histories(engine, rng, batch, HISTORY)
        states = [_checked(state) for state in engine.encode(jobs)]
        encoding("encode 1 event", batch, next_events(rng, states))
        encoding(f"encode {HISTORY} events", batch, jobs)
        for wide in WIDTHS:
            decoding("decode beam", wide, batch, lists(engine, states, jobs, wide))
        strategy, wide = SAMPLED
        decoding(f"decode {strategy}", wide, batch, lists(engine, states, jobs, wide, strategy))
    cases.sort(key=lambda case: (case[0].startswith("decode"), case[0], case[1] or 0, case[2]))
    found = []
    for what, width, batch, run in cases:
        taken = time_runs(run, seconds)
        ms = spread(taken)
        each = round((ms["p50"] or 0.0) / batch, 4)
        found.append({"what": what, "width": width, "batch": batch, "runs": len(taken), "ms": ms, "ms_per_row": each})
    return found


def nodes_by_device(
    files: Mapping[str, Path], left_out: frozenset[str] = frozenset()
) -> list[tuple[str, str, int, int]]:
    """Reads (graph, provider, nodes, copies between host and device) from onnxruntime's profiles, each node once.

    Operators `left_out` are not counted.
    """
    found = []
    for graph, file in files.items():
        nodes = {
            (event["args"].get("provider", "?"), event["name"], event["args"].get("op_name", ""))
            for event in orjson.loads(file.read_bytes())
            if event.get("cat") == "Node"
            and event["name"].endswith("_kernel_time")
            and event["args"].get("op_name", "") not in left_out
        }
        for provider in sorted({provider for provider, _, _ in nodes}):
            operators = [op for where, _, op in nodes if where == provider]
            found.append((graph, provider, len(operators), sum(op.startswith("Memcpy") for op in operators)))
    return found


def measure_layouts(engine: Engine, artifact: Path, seconds: float) -> list[dict[str, Any]]:
    """Measures the thread layouts with random histories."""
    rng = np.random.default_rng(0)
    batches = {}
    for batch in BATCHES:
        jobs = histories(engine, rng, batch, HISTORY)
        states = [_checked(state) for state in engine.encode(jobs)]
        batches[batch] = lists(engine, states, jobs, LAYOUT_WIDTH)
    return thread_layout.measure(artifact, batches, seconds)


def _checked(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="onnxruntime threads; all processors, if not given.")
    ] = None,
    cuda_graphs: Annotated[bool, typer.Option(help="Replay runs as CUDA graphs (device cuda).")] = False,
    profile: Annotated[
        Path | None, typer.Option(help="Count the nodes on each device; onnxruntime's profiles go to this folder.")
    ] = None,
    layout: Annotated[bool, typer.Option("--layout", help="Threads in a run × callers at once, on the CPU.")] = False,
    seconds: Annotated[float, typer.Option(min=0.0, max=60.0, help="Time for each case.")] = 0.5,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Times encoding and decoding of an artefact at several batch sizes and beam widths."""
    check_target(as_json, json_file)
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter("auto, cpu or cuda", param_hint="--device")
    chosen: Device = device  # type: ignore[assignment]
    try:
        prefix = None if profile is None else str(profile / "nodes")
        engine = Engine.open(artifact, device=chosen, threads=threads, cuda_graphs=cuda_graphs, profile=prefix)
        engine.warm_up()
        cases = measure_layouts(engine, artifact, seconds) if layout else measure(engine, seconds=seconds)
    except ServiceError as error:
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    report = {
        "model_version": engine.model_version,
        "onnxruntime": onnxruntime.__version__,
        "device": engine.placement.device,
        "cuda_graphs": engine.placement.capture,
        "processors": os.cpu_count(),
        "threads": engine.placement.threads,
        "k": K,
        "cases": cases,
    }
    made = f"lists of {K}, onnxruntime {onnxruntime.__version__} on {engine.placement.device}"
    if layout:
        columns = ["threads a run", "callers", "engines", "batch", "lists/s", "CPU ms a list", "p50 ms", "p99 ms"]
        names = ("threads", "callers", "engines", "batch", "lists_per_s", "cpu_ms_per_list")
        rows = [[*(c[name] for name in names), c["ms"]["p50"], c["ms"]["p99"]] for c in cases]
        title = f"{engine.model_version}: beams of {LAYOUT_WIDTH}, {made}"
    else:
        columns = ["what", "width", "batch", "p50 ms", "p95 ms", "p99 ms", "max ms", "p50 ms a row"]
        rows = [[c["what"], c["width"], c["batch"], *c["ms"].values(), c["ms_per_row"]] for c in cases]
        title = f"{engine.model_version}: {engine.placement.threads} threads, {made}"
    tables = [table(title, columns, rows)]
    if profile is not None:
        report["nodes"] = nodes_by_device(engine.end_profiling())
        tables.append(table("Where nodes ran", ["graph", "provider", "nodes", "copies"], report["nodes"]))
    publish(tables, report, as_json, json_file)


if __name__ == "__main__":
    run_command(main)
