"""How the engine scales with the catalogue: `python -m loadtests.engine.scale --out DIR [--sizes 10000,100000]`.

Missing artefacts of these sizes are made first (`loadtests.engine.synthetic_artifact`). All are measured in one run,
and the cases of a comparison take turns, so that other work of the machine affects all of them alike:

- a list from a hidden state and signals (`Engine.decode`, beam 5, k 10, so 64 nodes a level; one row a run), by size
- the constraint on against off: a run of `decoder.onnx`, of the decoder without a trie, and of `decoder.onnx` over all
  paths of codes (`loadtests.engine.unconstrained_decoder`); at 64 nodes a level, and again at 16
- one step of the constraint, this decoder's and STATIC's (`loadtests.engine.static_decoding`)
- in a process of its own for each size: opening the artefact with and without its checksums, memory, the first use of a
  filter, a change of stock, new items taken into the trie, and the fallback rungs
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loadtests.common import limit_criteria, results
from loadtests.common.report import table
from loadtests.engine.decoder_cases import BEAM, NARROW, K, constraint_cases, decode_case, jobs, step_cases
from loadtests.engine.paired_timing import ROUND, paired
from loadtests.engine.synthetic_artifact import synthetic_codes, write_synthetic
from service.artifact.trie import Trie
from service.cli.outermost import run_command
from service.engine.engine import Engine

SIZES = "10000,100000,1000000"
DECODE_LIMIT, CONSTRAINT_LIMIT = 1.5, 1.25


def trie_build_s(n_items: int) -> float:
    """Returns seconds to build the trie of a catalogue on one core; the best of three."""
    codes, _ = synthetic_codes(np.random.default_rng(0), n_items)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        Trie.build(codes)
        taken.append(time.perf_counter() - began)
    return min(taken)


def probe_in_process(folder: Path) -> dict[str, Any]:
    """Runs `loadtests.engine.probe` on an artefact, in a process of its own."""
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "loadtests.engine.probe", str(folder)], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def artifact_of_size(root: Path, n_items: int) -> Path:
    """Returns the artefact of a size under `root`, made if it is missing."""
    found = sorted(root.glob(f"synthetic-{n_items}-*"))
    return found[0] if found else write_synthetic(root, n_items)


def measure(root: Path, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Measures everything; returns the content of `scale.json`."""
    folders = {n: artifact_of_size(root, n) for n in sizes}
    probes = {n: probe_in_process(folder) for n, folder in folders.items()}
    engines = {n: Engine.open(folder, device="cpu", threads=1) for n, folder in folders.items()}
    decode = paired({str(n): decode_case(engine) for n, engine in engines.items()}, rounds)
    largest = engines[sizes[-1]]
    constraint, narrow = (
        {str(n): paired(constraint_cases(engine, root, decoding), rounds) for n, engine in engines.items()}
        for decoding in (BEAM, NARROW)
    )
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
        "narrow": NARROW.width(K),
        "constraint_narrow_ms": narrow,
        "step_ms": steps,
        "trie_build_s": {str(n): round(trie_build_s(n), 3) for n in sizes},
        "probes": {str(n): probe for n, probe in probes.items()},
    }


def ratios(found: Mapping[str, Any], sizes: list[int]) -> tuple[float, float, float]:
    """Returns decode p50 at the largest size ÷ at the smallest, and constraint on ÷ off at the largest, also narrow."""
    decode, last = found["decode_ms"], str(sizes[-1])
    wide, narrow = (found[name][last] for name in ("constraint_ms", "constraint_narrow_ms"))
    growth = decode[last]["p50"] / decode[str(sizes[0])]["p50"]
    return growth, wide["on"]["p50"] / wide["off"]["p50"], narrow["on"]["p50"] / narrow["off"]["p50"]


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
    growth, constraint, narrow = ratios(found, wanted)
    command = f"python -m loadtests.engine.scale --out DIR --sizes {sizes} --rounds {rounds}"
    if record:
        growing = results.row("3 decode p50 at 1M / at 10k", growth, "ratio", command, at_most=DECODE_LIMIT)
        cost = results.row("3 constraint on / off", constraint, "ratio", command, at_most=CONSTRAINT_LIMIT)
        results.record(results.ENGINE, growing)
        results.record(results.ENGINE, cost)
        results.record(results.ENGINE, limit_criteria.row(limit_criteria.CONSTRAINT, constraint, command))
        results.record(results.ENGINE, limit_criteria.row(limit_criteria.CONSTRAINT_NARROW, narrow, command))
        results.save("scale", found, command=command)
    _print(found, wanted)


def _print(found: Mapping[str, Any], sizes: list[int]) -> None:
    from rich.console import Console

    console = Console(width=120)
    names = [str(n) for n in sizes]
    rows: list[list[Any]] = [
        ["decode p50, ms", *(found["decode_ms"][n]["p50"] for n in names)],
        ["constraint on p50, ms", *(found["constraint_ms"][n]["on"]["p50"] for n in names)],
        ["constraint off p50, ms", *(found["constraint_ms"][n]["off"]["p50"] for n in names)],
        *(
            [f"narrow, {way} p50, ms", *(found["constraint_narrow_ms"][n][way]["p50"] for n in names)]
            for way in ("on", "off")
        ),
        ["whole code space p50, ms", *(found["constraint_ms"][n]["plain tables"]["p50"] for n in names)],
        ["trie build, s", *(found["trie_build_s"][n] for n in names)],
    ]
    rows += [[name, *(found["probes"][n].get(name) for n in names)] for name in found["probes"][names[-1]]]
    console.print(table("by items", ["", *names], rows))
    steps = [[name, ms["p50"] * 1000, ms["p95"] * 1000] for name, ms in found["step_ms"].items()]
    console.print(table("one step", ["", "p50 µs", "p95 µs"], steps))
    growth, wide, narrow = ratios(found, sizes)
    console.print(f"decode at {names[-1]} / at {names[0]}: {growth:.3f}")
    console.print(f"constraint on / off: {wide:.3f} at W {found['width']}, {narrow:.3f} at W {found['narrow']}")


if __name__ == "__main__":
    run_command(main)
