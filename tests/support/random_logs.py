"""Logs as people write them, drawn at random: ties, repeated rows, missing ids and times, several spellings."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import polars as pl
from hypothesis import strategies as st

FORMATS = ("csv", "tsv", "jsonl", "parquet", "no-header", "gz")

_IDS = st.sampled_from(["a", "b", "c", "10", "7", "7.0", "é,x", 'q"r', "", "NA"])
_ROW = st.fixed_dictionaries(
    {
        "user_id": _IDS,
        "item_id": st.sampled_from(["i", "j", "k", "l", "9", "9.0", "", "null"]),
        "timestamp": st.sampled_from(["1600000000", "1600000001", "1600000001.5", "1600000777", "", "NaT"]),
        "event_type": st.sampled_from(["view", "buy", "Click", "odd", ""]),
        "value": st.sampled_from(["1", "2.5", "-1", "3.25", "5", "-0.5", ""]),
        "scene": st.sampled_from(["home", "cart", ""]),
        "note": st.sampled_from(["plain", "x,y", 'he said "no"', "two\nlines", ""]),
        "session_id": st.sampled_from(["s", "t", ""]),
    }
)


@st.composite
def random_logs(draw: st.DrawFn) -> list[pl.DataFrame]:
    """Draws the tables of one to three files, of text; rows may be repeated, and columns missing in all or in one."""
    rows = draw(st.lists(_ROW, min_size=1, max_size=60))
    rows += draw(st.lists(st.sampled_from(rows), max_size=20))
    table = pl.DataFrame(rows)
    dropped = draw(st.lists(st.sampled_from(["timestamp", "event_type", "value", "scene", "session_id"]), max_size=2))
    table = table.drop(set(dropped))
    ends = sorted({0, *draw(st.lists(st.integers(1, len(rows)), max_size=2)), len(rows)})
    return [table[begin:end] for begin, end in pairwise(ends)]


def write_log(tables: list[pl.DataFrame], folder: Path, form: str) -> list[str]:
    """Writes the tables in one of `FORMATS`, and returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, table in enumerate(tables):
        ending = {"no-header": "csv", "gz": "csv.gz"}.get(form, form)
        path = folder / f"part-{number}.{ending}"
        if form == "parquet":
            table.write_parquet(path)
        elif form == "jsonl":
            table.with_columns(pl.all().replace("", None)).write_ndjson(path)
        else:
            text = table.write_csv(include_header=form != "no-header", separator="\t" if form == "tsv" else ",")
            path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
        files.append(str(path))
    return files
