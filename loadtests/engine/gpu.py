"""Checks and times the engine on a GPU, in four minutes: `python -m loadtests.engine.gpu`.

It makes its artefacts on the spot (`loadtests.engine.synthetic_artifact`), so it needs the repository, onnxruntime-gpu
and what the export needs, but no data and no store. For each size of catalogue, and in float32 and float16:

- placement: no node on the CPU, and no copy between host and device inside a run, by onnxruntime's own profile
- parity: the lists of the GPU are those of the CPU in float32
- CUDA graphs: replayed runs give the lists of runs that are not
- p50 and p99 of a run and lists a second, over batch sizes, with CUDA graphs and without

What no longer fits into the time is left out, and the report says so. Without a card the command says that and exits
with 1. `--device cpu` runs the same checks on the CPU, to try the command: it records nothing.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime
import typer
from rich.console import Console

from export.graphs.graph_writer import GraphDtype
from loadtests.common import results
from loadtests.common.report import table
from loadtests.engine.bench import HISTORY, histories, nodes_by_device
from loadtests.engine.decoder_cases import jobs
from loadtests.engine.synthetic_artifact import write_synthetic
from service.cli.outermost import run_command
from service.common.errors import ServiceError
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob
from service.engine.placement import PROVIDERS, choose_device

SIZES = "10000,100000,1000000"
BATCHES = (1, 8, 32, 128)
MINUTES = 4.0
DTYPES: tuple[GraphDtype, ...] = ("float32", "float16")
# The least share of places with the same item. In float16 near ties change places.
SAME: dict[str, float] = {"float32": 0.999, "float16": 0.95}
# An operator that reads a shape on the host, where shapes lie: it copies nothing.
ON_THE_HOST = frozenset({"Shape"})
_CALLS, _SECONDS = 40, 1.0
Chosen = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found, and whether it is as it must be."""

    items: int
    dtype: str
    what: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Times:
    """Times of a decoder run: milliseconds, and lists a second at the median."""

    items: int
    dtype: str
    graphs: bool
    batch: int
    p50_ms: float
    p99_ms: float
    lists_per_s: float


@dataclass(slots=True)
class Report:
    """What was found, and what the time did not suffice for."""

    device: Chosen
    until: float
    checks: list[Check] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def in_time(self) -> bool:
        """Whether there is time for another part."""
        return time.monotonic() < self.until

    @property
    def holds(self) -> bool:
        """Whether all checks hold."""
        return bool(self.checks) and all(check.holds for check in self.checks)


def placement(folder: Path, device: Chosen) -> list[tuple[str, bool]]:
    """Returns what of every graph ran where, and whether all of it ran on the device without copies."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-profile-") as profiles:
        engine = Engine.open(folder, device=device, threads=1, profile=str(Path(profiles) / "nodes"))
        asked = jobs(engine)[:8]
        for job in (asked, [_sampled(one) for one in asked]):
            decoded(engine, job)
        _encoded(engine, 8)
        files = engine.end_profiling()
        found, wanted = [], PROVIDERS[device]
        for graph, provider, nodes, copies in nodes_by_device(files, left_out=ON_THE_HOST):
            elsewhere = 0 if provider == wanted else nodes
            found.append((f"{graph}: {nodes} nodes on {provider}, {copies} copies", not elsewhere and not copies))
        engine.close()
    return found


def parity(engine: Engine, reference: Engine, dtype: str) -> tuple[str, bool]:
    """Returns the share of places with the item of the reference, and whether it is large enough."""
    asked = jobs(reference)
    share = same_places(decoded(reference, asked), decoded(engine, asked))
    states = [np.abs(one - other).max() for one, other in zip(_encoded(reference, 8), _encoded(engine, 8), strict=True)]
    return f"{100 * share:.2f} % of the places, states within {max(states):.2g}", share >= SAME[dtype]


def same_places(lists: Sequence[DecodedList], others: Sequence[DecodedList]) -> float:
    """Returns the share of places that hold the same item in both; of lists of two lengths, of the longer one's."""
    pairs = list(zip(lists, others, strict=True))
    places = sum(max(len(one.items), len(other.items)) for one, other in pairs)
    same = sum(int((one.items[: len(other.items)] == other.items[: len(one.items)]).sum()) for one, other in pairs)
    return same / max(1, places)


def decoded(engine: Engine, asked: Sequence[DecodeJob]) -> list[DecodedList]:
    """Returns the lists of jobs.

    Raises:
        Exception: One of them could not be decoded.
    """
    lists = []
    for one in engine.decode(asked):
        if isinstance(one, Exception):
            raise one
        lists.append(one)
    return lists


def timed(engine: Engine, batch: int, seconds: float = _SECONDS) -> tuple[float, float]:
    """Returns p50 and p99 of a decoder run of so many rows, in milliseconds."""
    pool = jobs(engine)
    asked = [pool[row % len(pool)] for row in range(batch)]
    for _ in range(3):  # the first plans, the second captures
        decoded(engine, asked)
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < _CALLS or time.perf_counter() < until:
        began = time.perf_counter()
        decoded(engine, asked)
        taken.append((time.perf_counter() - began) * 1000.0)
    p50, p99 = np.percentile(taken, [50, 99]).tolist()
    return p50, p99


def measure(
    report: Report, root: Path, sizes: Sequence[int], batches: Sequence[int], *, network: str, seconds: float
) -> None:
    """Adds all checks and times of catalogues of these sizes to a report.

    Args:
        report: Where they go.
        root: Folder for the artefacts.
        sizes: Numbers of items, ascending.
        batches: Rows of a run.
        network: Size of the network, of `model.network.config.SIZES`.
        seconds: Time for each batch size.
    """
    for items in sizes:
        reference: Engine | None = None
        for dtype in DTYPES:
            if not report.in_time:
                report.left_out.append(f"{items:,} items in {dtype}")
                continue
            folder = write_synthetic(root / dtype, items, size=network, dense=None, dtype=dtype)
            # Both types are compared with the CPU in float32.
            reference = reference or Engine.open(folder, device="cpu")
            _measure_one(report, folder, reference, items, dtype, batches, seconds)
        if reference is not None:
            reference.close()


def _measure_one(
    report: Report, folder: Path, reference: Engine, items: int, dtype: str, batches: Sequence[int], seconds: float
) -> None:
    def check(what: str, found: str, holds: bool) -> None:
        report.checks.append(Check(items, dtype, what, found, holds))

    for found, holds in placement(folder, report.device):
        check("placement", found, holds)
    plain = Engine.open(folder, device=report.device)
    check("parity", *parity(plain, reference, dtype))
    # The CPU has no CUDA graphs.
    engines = {False: plain}
    if report.device == "cuda":
        engines[True] = captured = Engine.open(folder, device="cuda", cuda_graphs=True)
        share = min(same_places(decoded(plain, jobs(plain)), decoded(captured, jobs(plain))) for _ in range(3))
        check("CUDA graphs", f"{100 * share:.2f} % of the places of runs without", share == 1.0)
    for graphs, engine in engines.items():
        for batch in batches:
            if not report.in_time:
                report.left_out.append(f"batches of {batch}, {items:,} items in {dtype}, graphs {graphs}")
                continue
            p50, p99 = timed(engine, batch, seconds)
            report.times.append(
                Times(items, dtype, graphs, batch, round(p50, 4), round(p99, 4), round(1000.0 * batch / p50, 1))
            )
        engine.close()


def _sampled(job: DecodeJob) -> DecodeJob:
    return replace(job, request=replace(job.request, decoding=Decoding("top_p")))


def _encoded(engine: Engine, rows: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    asked: list[EncodeJob] = histories(engine, np.random.default_rng(0), rows, HISTORY)
    states = []
    for one in engine.encode(asked):
        if isinstance(one, Exception):
            raise one
        states.append(one.h)
    return states


def card() -> str:
    """Returns name, memory and driver of the card as nvidia-smi tells them; a guess is no fact, so else "unknown"."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],  # noqa: S607
            check=True, capture_output=True, text=True, timeout=20.0,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.strip().splitlines()[0]


def main(
    out: Annotated[Path | None, typer.Option(help="Folder for the artefacts; by default one that is removed.")] = None,
    sizes: Annotated[str, typer.Option(help="Numbers of items, ascending.")] = SIZES,
    minutes: Annotated[float, typer.Option(min=0.01, help="What does not fit into this time is left out.")] = MINUTES,
    network: Annotated[str, typer.Option(help="Size of the network: tiny, small, base or large.")] = "small",
    seconds: Annotated[float, typer.Option(min=0.0, help="Time for each batch size.")] = _SECONDS,
    device: Annotated[str, typer.Option(help="cuda; or cpu, to try the command without a card.")] = "cuda",
    figures: Annotated[Path, typer.Option(help="Folder for the figures, gpu.json.")] = results.RESULTS,
) -> None:
    """Check and time the engine on a GPU."""
    if device not in ("cuda", "cpu"):
        raise typer.BadParameter("cuda or cpu", param_hint="--device")
    chosen: Chosen = device  # type: ignore[assignment]
    report = Report(chosen, time.monotonic() + 60.0 * minutes)
    try:
        if chosen == "cuda":
            choose_device("cuda")
        with tempfile.TemporaryDirectory(prefix="gpt4rec-gpu-") as scratch:
            wanted = [int(size) for size in sizes.split(",")]
            measure(report, out or Path(scratch), wanted, BATCHES, network=network, seconds=seconds)
    except ServiceError as error:
        typer.echo(f"gpu: {error}; nothing was measured", err=True)
        raise typer.Exit(1) from None
    _print(report)
    if chosen == "cuda":
        command = f"python -m loadtests.engine.gpu --sizes {sizes}"
        content = {
            "card": card(),
            "onnxruntime_gpu": onnxruntime.__version__,
            "network": network,
            "holds": report.holds,
        }
        parts = {"checks": [asdict(one) for one in report.checks], "times": [asdict(one) for one in report.times]}
        results.save("gpu", {**content, **parts, "left_out": report.left_out}, command=command, folder=figures)
    if not report.holds:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    console = Console(width=140)
    checks = [[f"{one.items:,}", one.dtype, one.what, one.found, one.holds] for one in report.checks]
    console.print(table("Checks", ["items", "type", "what", "found", "holds"], checks))
    times = [
        [f"{one.items:,}", one.dtype, one.graphs, one.batch, one.p50_ms, one.p99_ms, one.lists_per_s]
        for one in report.times
    ]
    console.print(table("Times", ["items", "type", "graphs", "batch", "p50 ms", "p99 ms", "lists/s"], times))
    for what in report.left_out:
        console.print(f"left out, for want of time: {what}", highlight=False)


if __name__ == "__main__":
    run_command(main)
