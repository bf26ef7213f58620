"""Candidates by cell against the exhaustive list: `python -m loadtests.engine.cells --run RUN --artifact DIR --out O`.

Catalogues of 10,000, 100,000 and a million items are made of a trained run (`loadtests.engine.enlarged_artifact` states
the law), each with graphs of the beam alone, as large catalogues had them before, and with candidates by cell. The
states are those of real histories: every second one gives its query to fit the dimensions and the order of the cells,
the others ask.

The dense score alone ranks the lists, so that the exhaustive top ten is that of q · e over all items that a filter
leaves. Enlarged catalogues hold items with equal vectors, so an item counts as found where one with the same score is
listed in its place. Filters leave 10, 1 and .1 % of the items, drawn by chance: the worst case, since what people
filter by mostly lies together in the codes.

A list is read at several numbers R of rows. For each there is the recall of the exhaustive top ten, and p50 of a list
at batch 1, one thread, without signals, in turns with the beam alone. The figures of the criteria are those of the
smallest R whose recall at the largest catalogue, without a filter, is at least .99, or of the largest R, if none
reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from export.artifact_writer import write
from export.choose_candidates import exhaustive as ranked_by_leaf
from export.choose_candidates import in_best_order
from export.publish import publish, staging
from loadtests.common import limit_criteria, results
from loadtests.common.report import table
from loadtests.engine.enlarged_artifact import enlarged_parts
from loadtests.engine.paired_timing import Timed, paired
from model.data.query_histories import history_events
from model.evaluation.rankers import encoding_of
from model.training.run_folder import Run
from service.artifact.array_types import FloatArray
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN
from service.artifact.graphs.cells import Cells
from service.artifact.items.filter_conditions import Filters
from service.artifact.trie import Trie
from service.cli.outermost import run_command
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, ListRequest
from service.engine.run_groups import result_of

NAME = "cells"
SIZES = "10000,100000,1000000"
ROWS = (1024, 4096, 8192, 12288, 16384)
K, WANTED = 10, 0.99
LEFT = limit_criteria.LEFT_BY_FILTER
_AT_ONCE = 16
# Scores that differ by less than this share of the largest are the same.
_SAME = 1e-5
BEAM = "beam alone"
FILTERS: Mapping[str, Filters] = {"everything": {}, **{f"{left:g} %": {"brand": [f"left {left:g}"]} for left in LEFT}}


def states(run: Run, artifact: Path, most: int) -> FloatArray:
    """Returns the states [n, d] after the last event of up to `most` users of a run's log."""
    engine = Engine.open(artifact, device="cpu")
    log = run.split(run.dataset(None)).sequences
    users = np.random.default_rng(0).permutation(len(log.lengths))[:most]
    known = engine.artifact.vocabulary
    events = [history_events(log, int(user), int(log.offsets[user + 1]), known) for user in users]
    jobs = [encoding_of(engine, one) for one in events]
    found = [result_of(one) for at in range(0, len(jobs), _AT_ONCE) for one in engine.encode(jobs[at : at + _AT_ONCE])]
    return np.stack([state.h for state in found])


def artifacts(run: Run, root: Path, n_items: int, queries: FloatArray) -> tuple[Path, Path]:
    """Returns the artefacts of a size, with the beam alone and with cells; made if they are missing."""
    folders = [root / name for name in ("beam", "cells")]
    found = [sorted(folder.glob(f"enlarged-{n_items}-*")) for folder in folders]
    if not all(found):
        parts = enlarged_parts(run.model(), run.context, n_items, LEFT)
        vectors, trie = parts.model.item_table().detach().numpy(), Trie.build(parts.tokenizer.codes)
        cells = Cells.build(trie, vectors, queries=queries)
        no_bias = np.zeros(n_items, np.float32)
        cells = in_best_order(cells, ranked_by_leaf(queries, vectors[trie.leaf_item], 1.0, no_bias))
        found = []
        for folder, one in zip(folders, (parts, replace(parts, cells=cells)), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            with staging(folder) as staged:
                write(one, staged, "float32")
                found.append([publish(staged, folder)])
    return found[0][-1], found[1][-1]


def opened(folder: Path, rows: int | None = None) -> Engine:
    """Opens an engine that ranks by the dense score alone, and reads so many rows of the best cells."""
    artifact = Artifact.open(folder, checksums=False)
    if rows is not None and artifact.cells is not None:
        artifact.__dict__["cells"] = replace(artifact.cells, rows=rows)
    engine = Engine(artifact, device="cpu", threads=1)
    engine.set_weights([(0.0, 1.0)], np.zeros((1, len(artifact.catalogue)), np.float32))
    return engine


def jobs(engine: Engine, h: FloatArray, chosen: Filters) -> list[DecodeJob]:
    """Returns a list to make for each state."""
    request = ListRequest(
        context=np.zeros(engine.artifact.network["n_slots"], np.int64), gap_ms=GAP_UNKNOWN,
        decoding=Decoding("beam", beam_width=5), k=K, filter_id=engine.filter_id(chosen),
    )  # fmt: skip
    return [DecodeJob(h=one, request=request) for one in h]


def lists(engine: Engine, h: FloatArray, chosen: Filters) -> list[DecodedList]:
    """Decodes a list for each state."""
    asked = jobs(engine, h, chosen)
    return [result_of(one) for at in range(0, len(asked), _AT_ONCE) for one in engine.decode(asked[at : at + _AT_ONCE])]


def queries_of(run: Run, h: FloatArray) -> FloatArray:
    """Returns q [n, d] of states, for a request that says nothing."""
    import torch

    model, n = run.model().eval(), len(h)
    context = torch.zeros(n, model.config.n_slots, dtype=torch.int64)
    with torch.no_grad():
        q: FloatArray = model.query(torch.from_numpy(h), context, torch.full((n,), GAP_UNKNOWN)).numpy()
    return q


def exhaustive(engine: Engine, q: FloatArray, chosen: Filters) -> list[FloatArray]:
    """Returns the k largest q · e of each query, ascending, of the items that a filter leaves."""
    items = np.flatnonzero(engine.artifact.catalogue.allowed(chosen))  # type: ignore[arg-type]
    if not chosen:
        items = np.arange(len(engine.artifact.catalogue))
    vectors = np.ascontiguousarray(engine.artifact.item_table[items])
    found = []
    for at in range(0, len(q), _AT_ONCE):
        score = q[at : at + _AT_ONCE] @ vectors.T
        found += list(np.sort(np.partition(score, -K, axis=1)[:, -K:], axis=1))
    return found


def found_of(scores: FloatArray, best: FloatArray) -> int:
    """Returns how many of the best scores an exhaustive list has are in a list, whatever their order.

    Args:
        scores: [n] q · e of the items of the list.
        best: [k] those of the exhaustive list.
    """
    # The same product is not the same to the last bit in another batch, and its error is that of its largest terms.
    error = _SAME * float(np.abs(best).max(initial=0.0))
    least, most = best[:, None] - error, best[:, None] + error
    listed = ((scores >= least) & (scores <= most)).sum(axis=1)
    asked = ((best >= least) & (best <= most)).sum(axis=1)
    # Of m equal scores, all are found where m are listed.
    return round(float((np.minimum(listed, asked) / asked).sum()))


def quality(engine: Engine, h: FloatArray, q: FloatArray, best: Mapping[str, Sequence[FloatArray]]) -> dict[str, Any]:
    """Returns recall of the exhaustive top ten by filter, and how many lists are shorter than they could be."""
    recall, short, vectors = {}, 0, engine.artifact.item_table
    for name, chosen in FILTERS.items():
        made = lists(engine, h, chosen)
        hits = [found_of(vectors[one.items] @ query, top) for one, query, top in zip(made, q, best[name], strict=True)]
        recall[name] = round(sum(hits) / sum(len(top) for top in best[name]), 5)
        short += sum(len(one.items) < len(top) for one, top in zip(made, best[name], strict=True))
    return {"recall": recall, "short": short}


def case(engine: Engine, h: FloatArray, chosen: Filters) -> Timed:
    """Returns a case that decodes one list."""
    asked = jobs(engine, h, chosen)
    return lambda number: [result_of(one) for one in engine.decode([asked[number % len(asked)]])]


def measure(run: Run, artifact: Path, out: Path, sizes: Sequence[int], users: int, rounds: int) -> dict[str, Any]:
    """Measures every size; returns the content of `cells.json`."""
    h = states(run, artifact, 2 * users)
    q = queries_of(run, h)
    fitted, asked = q[::2], slice(1, None, 2)
    found: dict[str, Any] = {}
    for n_items in sizes:
        beam, by_cell = artifacts(run, out, n_items, fitted)
        engines = {BEAM: opened(beam)} | {str(rows): opened(by_cell, rows) for rows in ROWS}
        best = {name: exhaustive(engines[BEAM], q[asked], chosen) for name, chosen in FILTERS.items()}
        points = {name: quality(engine, h[asked], q[asked], best) for name, engine in engines.items()}
        timed = {
            filtered: paired({name: case(engine, h[asked], chosen) for name, engine in engines.items()}, rounds, 20)
            for filtered, chosen in FILTERS.items()
        }
        for name, point in points.items():
            point["ms"] = {filtered: ms[name] for filtered, ms in timed.items()}
            point["ratio"] = {f: round(ms[name]["p50"] / ms[BEAM]["p50"], 3) for f, ms in timed.items()}
        cells = engines[str(ROWS[0])].artifact.cells
        found[str(n_items)] = {"cells": 0 if cells is None else len(cells), "points": points}
    return {"users": len(h[asked]), "k": K, "run": run.data["name"], "sizes": found, "on_paper": on_paper()}


def on_paper(n_items: int = 10_000_000, d: int = 128, dimensions: int = 32, per_cell: int = 96) -> dict[str, Any]:
    """Computes, without a measurement, what ten million items take: bytes by file, and bytes that a list reads."""
    cells, rows = n_items // per_cell, max(ROWS)
    return {
        "items": n_items,
        "item vectors, MiB": round(n_items * d * 4 / 2**20),
        "vectors in few dimensions, MiB": round(n_items * dimensions * 4 / 2**20),
        "cells, MiB": round(cells * dimensions * 4 / 2**20, 1),
        "one filter on the device, MiB": round((n_items + 5 * cells) / 2**20, 1),
        "read by a list, MiB": round((cells + rows) * dimensions * 4 / 2**20, 1),
        "read by a list of the whole catalogue, MiB": round(n_items * d * 4 / 2**20),
    }


def chosen_rows(found: Mapping[str, Any], n_items: int) -> str:
    """Returns the number of rows whose figures are those of the criteria."""
    points = {rows: found["sizes"][str(n_items)]["points"][str(rows)] for rows in ROWS}
    return str(next((rows for rows, point in points.items() if point["recall"]["everything"] >= WANTED), max(ROWS)))


def keep(found: Mapping[str, Any], n_items: int, command: str) -> None:
    """Records the rows of the criteria, and the payload."""
    point = found["sizes"][str(n_items)]["points"][chosen_rows(found, n_items)]
    rows = {
        limit_criteria.CELLS_RECALL: point["recall"]["everything"],
        limit_criteria.CELLS_TIME: point["ratio"]["everything"],
        **{limit_criteria.cells_filtered(left): point["recall"][f"{left:g} %"] for left in LEFT},
        limit_criteria.CELLS_SHORT: point["short"],
    }
    for name, value in rows.items():
        results.record(results.ENGINE, limit_criteria.row(name, value, command))
    results.save(NAME, found, command=command)


def main(
    run: Annotated[Path, typer.Option(help="Folder of a trained run, which the catalogues are made of.")],
    artifact: Annotated[Path, typer.Option(help="The artefact of this run, which encodes its histories.")],
    out: Annotated[Path, typer.Option(help="Folder for the artefacts: about 4 GB with a million items.")],
    sizes: Annotated[
        str, typer.Option(help="Numbers of items, ascending; the criteria are those of the last.")
    ] = SIZES,
    users: Annotated[int, typer.Option(min=10, help="Histories whose lists are compared.")] = 400,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of 20 lists of each case.")] = 5,
    record: Annotated[bool, typer.Option(help="Write the rows and cells.json to loadtests/results.")] = True,
) -> None:
    """Measures recall and time of candidates by cell."""
    from rich.console import Console

    wanted = [int(size) for size in sizes.split(",")]
    found = measure(Run.open(run), artifact, out, wanted, users, rounds)
    if record:
        command = f"python -m loadtests.engine.cells --run RUN --artifact DIR --out DIR --sizes {sizes} --users {users}"
        keep(found, wanted[-1], f"{command} --rounds {rounds}")
    for size, of_size in found["sizes"].items():
        rows = [
            [name, *(point["recall"][f] for f in FILTERS), *(point["ratio"][f] for f in FILTERS), point["short"]]
            for name, point in of_size["points"].items()
        ]
        heads = ["rows", *(f"recall, {f}" for f in FILTERS), *(f"× beam, {f}" for f in FILTERS), "short"]
        Console(width=160).print(table(f"{size} items, {of_size['cells']} cells", heads, rows))


if __name__ == "__main__":
    run_command(main)
