"""The files of the counts of a log, and the tables made of them. Every engine that counts writes them through here."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from scipy import sparse

from model.data.errors import DataError
from model.signals.counted.range_counts import PARTS, SPLIT_SCHEMA
from model.signals.shared_users import ItemTotals, Kind, neighbour_table
from model.signals.transition_table import table_of
from service.artifact.scorers.item_cf import ItemCF
from service.common.atomic_files import naming

__all__ = ["PAIRS", "TRANSITIONS", "Kind", "write_counts"]

PAIRS, TRANSITIONS = "pairs", "transitions"
PAIR_SCHEMA: Mapping[str, pl.DataType] = dict.fromkeys(("item", "other", "users", "weight"), pl.Int64())
TRANSITION_SCHEMA: Mapping[str, pl.DataType] = dict.fromkeys(("item", "next", "weight"), pl.Int64())
FORMAT = "gpt4rec-counts"
# Neighbours of an item in the table of item-CF: the most that a training tries.
NEIGHBOURS = 200
_ROWS = 1 << 20


def write_counts(
    out: Path,
    told: Mapping[str, Any],
    items: pl.DataFrame,
    pairs: Sequence[Path],
    transitions: Sequence[Path],
    questions: Sequence[Path],
    kind: Kind,
) -> None:
    """Writes the folder of counts, whole or not at all.

    Args:
        out: The folder; counts that are there are replaced.
        told: What meta.json tells.
        items: What is known of each item alone.
        pairs: Files of the pairs, by item and other item.
        transitions: Files of the transitions, by item and next item.
        questions: Files of the questions, by user.
        kind: Kind of similarity of the table of item-CF.

    Raises:
        DataError: Something else is at `out`.
    """
    if out.exists() and not _is_counts(out):
        raise DataError(
            "something that is not the counts of a log is already there; it is left unchanged",
            where=str(out),
            fix="choose another --out, or move it away",
        )
    with naming(out):
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            aside.chmod(0o755)
            items.write_parquet(aside / "items.parquet")
            _join(pairs, PAIR_SCHEMA, aside / "pairs.parquet")
            _join(transitions, TRANSITION_SCHEMA, aside / "transitions.parquet")
            by_part = [pl.scan_parquet(list(questions)).filter(pl.col("part") == part) for part in PARTS]
            pl.concat(by_part).select(*SPLIT_SCHEMA).sink_parquet(aside / "split.parquet")
            _write_tables(aside, items, kind)
            (aside / "meta.json").write_text(json.dumps({"format": FORMAT, **told}, indent=2) + "\n", encoding="utf-8")
            if out.exists():
                shutil.rmtree(out)
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _is_counts(out: Path) -> bool:
    try:
        return bool(json.loads((out / "meta.json").read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return out.is_dir() and not any(out.iterdir())


def _join(files: Sequence[Path], schema: Mapping[str, pl.DataType], path: Path) -> None:
    if not files:
        pl.DataFrame(schema=dict(schema)).write_parquet(path)
        return
    pl.scan_parquet(list(files)).select(*schema).sink_parquet(path)


def _write_tables(folder: Path, items: pl.DataFrame, kind: Kind) -> None:
    totals = ItemTotals(items["users"].to_numpy(), items["weight"].to_numpy())
    column = "users" if kind == "cosine" else "weight"
    rows = _matrices(folder / "pairs.parquet", "other", column, items.height)
    neighbour, similarity = neighbour_table(kind, NEIGHBOURS, totals, rows)
    ItemCF(neighbour, similarity).save(folder / "item_cf.npz")
    steps = table_of(
        items["counted"].to_numpy(), _matrices(folder / "transitions.parquet", "next", "weight", items.height)
    )
    if steps is not None:
        steps.save(folder / "transitions.npz")


def _matrices(path: Path, other: str, value: str, n_items: int) -> Iterator[tuple[int, sparse.csr_array]]:
    """Yields the first item and the counts of ranges of items, out of a file by item; an item that may go on waits."""
    lazy = pl.scan_parquet(path).select("item", other, value)
    height, begin, waiting = int(lazy.select(pl.len()).collect().item()), 0, None
    for start in range(0, height, _ROWS):
        rows = lazy.slice(start, _ROWS).collect()
        rows = rows if waiting is None else pl.concat([waiting, rows])
        end = n_items if start + _ROWS >= height else int(rows["item"][-1])
        waiting = rows.filter(pl.col("item") >= end)
        item, column, values = (rows.filter(pl.col("item") < end)[name].to_numpy() for name in ("item", other, value))
        yield begin, sparse.csr_array((values, (item - begin, column)), shape=(end - begin, n_items))
        begin = end
