"""How long the engine takes, without HTTP and Redis: `python -m loadtests.engine_bench --artifact DIR`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer

from export.features import GAP_UNKNOWN, START_TYPE
from loadtests.report import publish, spread, table
from service.decoding import Decoding
from service.engine import Engine, Job
from service.errors import ServiceError
from service.sessions import Device
from service.state import EncoderState

BATCHES = (1, 8, 32)
WIDTHS = (16, 64, 128)
HISTORY = 50
K = 10
LEAST_RUNS = 5


def jobs(engine: Engine, rng: np.random.Generator, batch: int, events: int) -> list[Job]:
    """Encode-only jobs of `events` new events each, at random items, a day apart."""
    n_items = len(engine.artifact.catalogue.item_ids)
    context = engine.artifact.vocabulary.context.encode({})
    nothing = np.zeros(0, np.int64)
    return [
        Job(
            state=None,
            item=rng.integers(0, n_items, events),
            type=rng.integers(0, START_TYPE, events),
            time_ms=1_700_000_000_000 + np.arange(events, dtype=np.int64) * 86_400_000,
            from_start=True, context=context, gap_ms=GAP_UNKNOWN, decoding=Decoding("greedy"), k=0, allowed=0,
            excluded=nothing, seed=0,
        )
        for _ in range(batch)
    ]  # fmt: skip


def states(engine: Engine, rng: np.random.Generator, batch: int) -> list[EncoderState]:
    return [_checked(result).state for result in engine.run(jobs(engine, rng, batch, HISTORY))]


def time_runs(engine: Engine, batch: Sequence[Job], seconds: float) -> list[float]:
    """Milliseconds of each run, for about `seconds`; the first run does not count."""
    taken: list[float] = []
    for result in engine.run(batch):
        _checked(result)
    until = time.perf_counter() + seconds
    while len(taken) < LEAST_RUNS or time.perf_counter() < until:
        began = time.perf_counter()
        engine.run(batch)
        taken.append((time.perf_counter() - began) * 1000.0)
    return taken


def measure(engine: Engine, *, seconds: float, seed: int = 0) -> list[dict[str, Any]]:
    """One entry for each case: what, width, batch, runs, ms (p50 …), ms_per_row."""
    rng = np.random.default_rng(seed)
    cases: list[tuple[str, int | None, int, list[Job]]] = []
    for batch in BATCHES:
        bases = states(engine, rng, batch)
        one = [replace(job, state=base) for job, base in zip(jobs(engine, rng, batch, 1), bases, strict=True)]
        cases.append(("encode 1 event", None, batch, one))
        cases.append((f"encode {HISTORY} events", None, batch, jobs(engine, rng, batch, HISTORY)))
        for wide in WIDTHS:
            decoding = [
                replace(job, state=base, k=K, width=wide)
                for job, base in zip(jobs(engine, rng, batch, 0), bases, strict=True)
            ]
            cases.append(("decode", wide, batch, decoding))
    cases.sort(key=lambda case: (case[0] == "decode", case[0], case[1] or 0, case[2]))
    found = []
    for what, width, batch, batch_jobs in cases:
        taken = time_runs(engine, batch_jobs, seconds)
        ms = spread(taken)
        each = round((ms["p50"] or 0.0) / batch, 4)
        found.append({"what": what, "width": width, "batch": batch, "runs": len(taken), "ms": ms, "ms_per_row": each})
    return found


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
    seconds: Annotated[float, typer.Option(min=0.0, max=60.0, help="Time for each case.")] = 0.5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here; - prints them.")] = None,
) -> None:
    """Times encoding and decoding of an artefact at several batch sizes and beam widths."""
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter("auto, cpu or cuda", param_hint="--device")
    chosen: Device = device  # type: ignore[assignment]
    try:
        engine = Engine.open(artifact, device=chosen, threads=threads)
        cases = measure(engine, seconds=seconds)
    except ServiceError as error:
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    report = {
        "model_version": engine.model_version,
        "onnxruntime": onnxruntime.__version__,
        "processors": os.cpu_count(),
        "threads": threads or os.cpu_count(),
        "k": K,
        "cases": cases,
    }
    columns = ["what", "width", "batch", "p50 ms", "p95 ms", "p99 ms", "max ms", "p50 ms a row"]
    rows = [[c["what"], c["width"], c["batch"], *c["ms"].values(), c["ms_per_row"]] for c in cases]
    title = f"{engine.model_version}: {report['threads']} threads, lists of {K}, onnxruntime {onnxruntime.__version__}"
    publish([table(title, columns, rows)], report, json_file)


if __name__ == "__main__":
    typer.run(main)
