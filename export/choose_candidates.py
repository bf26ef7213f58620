"""Which candidates join the beam's: of the whole catalogue, of its best cells, or of the items with signals alone.

Up to `DENSE_ITEMS_MAX` items the whole catalogue is scored, so that lists are those of the exhaustive score. In larger
ones the best cells are read (`service.artifact.graphs.cells`), of which the export asks how many items must be: it
ranks the items of validation questions by what is known of their score without the path, exhaustively and by cell, and
takes the smallest number of rows whose lists hold enough of the exhaustive top ten. Items with signals of a user are
candidates for their own sake, so without them the recall comes out too low rather than too high. Where cells find too
little, they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from export.artifact_writer import Parts
from export.graphs.candidates import dense_by_rule
from model.data.query_histories import history_events
from model.data.split import Split
from model.evaluation.rankers import batches_of
from model.network.encoders.registry import reads
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encode_histories, encoder_input
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN, Vocabulary
from service.artifact.graphs.cells import SPREAD, SPREADS, Cells, exact_width
from service.artifact.trie import Trie
from service.engine.decode.cell_tables import cell_bias, cells_read
from service.engine.decoding import joined_width
from service.signals.ranker import Ranker

Wanted = Literal["measured", "all", "cells", "signals"]
WANTED: tuple[Wanted, ...] = get_args(Wanted)
# Numbers of rows that are tried, and the share of the exhaustive top ten that suffices, and that cells need at all.
ROWS = (1024, 2048, 4096, 8192, 12288, 16384, 24576, 32768)
ENOUGH, LEAST = 0.995, 0.9
# The share of the exhaustive lists by which the order of the cells is chosen.
_FOUND = 0.99
# Validation questions: half of them fit the dimensions and the order of the cells, the others are asked.
QUESTIONS = 512
_K = 10
_WIDTH = 64  # of a beam for a list of ten

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Exhaustive:
    """Questions whose exhaustive lists are known.

    Attributes:
        queries: [n, d] their queries.
        best: [n, k] leaves of the best items.
        weight: Weight of q · e.
        bias: [N] what signals of items add, by leaf.
    """

    queries: FloatArray
    best: IntArray
    weight: float
    bias: FloatArray


def with_candidates(parts: Parts, split: Split, wanted: Wanted, say: Say = lambda _: None) -> Parts:
    """Returns the parts with the candidates that are chosen, and an entry `candidates` for the manifest.

    Args:
        parts: The parts of an artefact with its weights.
        split: The split of the run.
        wanted: What is asked for; `measured`: what the size of the catalogue and validation say.
        say: Receives what is being done.
    """
    if wanted in ("all", "signals") or (wanted == "measured" and dense_by_rule(len(parts.catalogue))):
        chosen = "signals" if wanted == "signals" else "all"
        return _chosen(parts, chosen, None, {"by": "size" if wanted == "measured" else "option"})
    say("measuring candidates by cell")
    trie = Trie.build(parts.tokenizer.codes)
    with torch.no_grad():
        vectors = parts.model.item_table().cpu().numpy().astype(np.float32)
    queries = _queries(parts.model, parts.vocabulary, split)
    by_leaf, weighed = vectors[trie.leaf_item], _weighed(parts, trie)
    cells = Cells.build(trie, vectors, rows=max(ROWS), queries=queries[::2])
    cells = in_best_order(cells, exhaustive(queries[::2], by_leaf, *weighed))
    asked = exhaustive(queries[1::2], by_leaf, *weighed)
    curve = {rows: recall(replace(cells, rows=rows), asked) for rows in ROWS} if len(asked.queries) else {}
    rows = next((rows for rows, found in curve.items() if found >= ENOUGH), max(ROWS))
    about: dict[str, Any] = {
        "by": "recall" if wanted == "measured" else "option", "questions": len(asked.queries), "rows": rows,
        "spread": cells.weight,
        "recall": {str(rows): round(found, 5) for rows, found in curve.items()},
    }  # fmt: skip
    if wanted == "measured" and curve and curve[rows] < LEAST:
        return _chosen(parts, "signals", None, about)
    return _chosen(parts, "cells", replace(cells, rows=rows), about)


def _chosen(parts: Parts, chosen: str, cells: Cells | None, about: dict[str, Any]) -> Parts:
    entry = {"candidates": {"chosen": chosen, **about}}
    return replace(parts, dense=chosen == "all", cells=cells, about={**parts.about, **entry})


def _weighed(parts: Parts, trie: Trie) -> tuple[float, FloatArray]:
    """Returns the weight of q · e while it stands for the path too, and the bias [N] by leaf, of all users."""
    ranker = Ranker.of(parts.all_signals, parts.weights)
    return float(sum(ranker.network())), ranker.bias().take(trie.leaf_item)


@torch.no_grad()
def _queries(model: GPT4Rec, vocabulary: Vocabulary, split: Split) -> FloatArray:
    """Returns the queries [n, d] of validation questions."""
    asked, log = split.valid.sample(QUESTIONS), split.sequences
    inputs = [
        encoder_input(history_events(log, int(user), int(end), vocabulary), reads(model.config), vocabulary)
        for user, end in zip(asked.users, asked.history_end, strict=True)
    ]
    table, found = model.eval().item_table(), np.zeros((len(inputs), model.config.d_model), np.float32)
    for rows in batches_of([len(one) for one in inputs]):
        slots = torch.zeros(len(rows), model.config.n_slots, dtype=torch.int64)
        h = encode_histories(model, [inputs[row] for row in rows], table, slots)
        found[rows] = model.query(h, slots, torch.full((len(rows),), GAP_UNKNOWN)).cpu().numpy()
    return found


def exhaustive(queries: FloatArray, vectors: FloatArray, weight: float, bias: FloatArray) -> Exhaustive:
    """Ranks all items [N, d] by leaf for queries [n, d]."""
    k = min(_K, len(vectors))
    best = np.zeros((len(queries), k), np.int64)
    for row, q in enumerate(queries):
        best[row] = np.argpartition(-(weight * (vectors @ q) + bias), k - 1)[:k]
    return Exhaustive(queries, best, weight, bias)


def in_best_order(cells: Cells, asked: Exhaustive) -> Cells:
    """Returns the cells in the order that needs the fewest items until .99 of the exhaustive lists are among them.

    Args:
        cells: The cells.
        asked: Questions; without any, the cells are returned as they are.
    """
    if not len(asked.queries):
        return cells
    size, own = np.diff(cells.first_leaf), cells.of_leaf(asked.best)
    bias = cell_bias(cells, asked.bias[None])[0]

    def needed(weight: float) -> float:
        """Returns how many items are read until that share is found."""
        ordered, read = replace(cells, weight=weight), np.zeros(asked.best.shape, np.int64)
        items = np.empty(len(size), np.int64)
        for row, q in enumerate(asked.queries):
            order = np.argsort(-(asked.weight * ordered.scores(q[None])[0] + bias), kind="stable")
            items[order] = np.cumsum(size[order])
            read[row] = items[own[row]]
        return float(np.quantile(read, _FOUND))

    return replace(cells, weight=min(SPREADS, key=lambda c: (needed(c), abs(c - SPREAD))))


def recall(cells: Cells, asked: Exhaustive) -> float:
    """Returns the share of the exhaustive lists that cells find, read and compared as the graphs do."""
    size = np.diff(cells.first_leaf)
    score = asked.weight * cells.scores(asked.queries) + cell_bias(cells, asked.bias[None])
    most = cells_read(size, cells.rows)
    short = asked.weight * asked.queries @ cells.query_basis
    exact, hits = exact_width(joined_width(_K, _WIDTH)), 0
    for row, best in enumerate(asked.best):
        order = np.argsort(-score[row], kind="stable")[:most]
        leaf = _leaves(cells.first_leaf[order], size[order])[: cells.rows]
        promised = cells.leaf_vectors[leaf] @ short[row] + asked.bias[leaf]
        kept = leaf[np.argsort(-promised, kind="stable")[:exact]]
        hits += len(np.intersect1d(kept, best))
    return hits / max(1, asked.best.size)


def _leaves(first: IntArray, size: IntArray) -> IntArray:
    """Returns the leaves of ranges, one after the other."""
    before = np.cumsum(size) - size
    leaf: IntArray = np.repeat(first - before, size) + np.arange(int(size.sum()))
    return leaf


def note(about: dict[str, Any]) -> str | None:
    """Returns a sentence about the choice, for a reader of the command's output; None where the whole catalogue is."""
    if about["chosen"] == "all":
        return None
    if about["chosen"] == "signals":
        return "candidates: besides the beam's, only items with signals join: cells of the codes find too little"
    found: Sequence[float] = [value for rows, value in about["recall"].items() if int(rows) == about["rows"]]
    share = f", which hold {found[0]:.1%} of the exhaustive top ten on validation" if found else ""
    return f"candidates: {about['rows']:,} items of the best cells are read for a list{share}"


__all__ = ["WANTED", "Exhaustive", "Wanted", "exhaustive", "note", "recall", "with_candidates"]
