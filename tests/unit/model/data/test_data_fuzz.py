"""Whatever a file holds, an import ends with a data set or with a message, never with a traceback."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Dataset, sequences
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset

NOW = 1_800_000_000_000

words = [
    "",
    "u",
    "a",
    "NaN",
    "1700000000",
    "1700000000000",
    "2024-01-01",
    "1e400",
    '"',
    "a\x00b",
    "é",
    "\\N",
    "1.0",
    "4,5",
    "5 EUR",
]
cells = st.one_of(st.sampled_from(words), st.text(max_size=6))
headers = {
    Format.CSV: ["user_id", "item_id", "timestamp", "event_type", "value"],
    Format.RECBOLE: ["user_id:token", "item_id:token", "timestamp:float", "rating:float"],
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[Format, bytes]:
    form = draw(st.sampled_from(sorted(headers)))
    header = headers[form][: draw(st.integers(2, 5))]
    separator = "," if form is Format.CSV else "\t"
    rows = draw(st.lists(st.lists(cells, min_size=1, max_size=len(header) + 1), max_size=6))
    text = "\n".join(separator.join(row) for row in [header, *rows])
    return form, text.encode("utf-8", "surrogatepass")


lines = st.text(alphabet="ab 1\n\r\t\x0b\x85,;", max_size=40).map(str.encode)
files = st.one_of(
    tables(),
    st.tuples(st.sampled_from(sorted(Format)), st.binary(max_size=60)),
    st.tuples(st.just(Format.SEQUENCES), lines),
    st.tuples(st.just(Format.PARQUET), st.binary(max_size=40).map(lambda b: b"PAR1" + b + b"PAR1")),
)
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
    st.lists(st.one_of(st.text(max_size=2), st.integers(), st.none()), max_size=2),
    st.dictionaries(st.text(max_size=1), st.integers(), max_size=1),
)  # fmt: skip
objects = st.dictionaries(st.sampled_from(["item_id", "user_id", "title", "category", "attributes", "price"]), values)
side_tables = st.one_of(
    st.binary(max_size=40),
    st.lists(cells, max_size=6).map(lambda rows: "\n".join(["item_id,user_id", *rows]).encode()),
    st.lists(objects, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
)


@settings(max_examples=300, deadline=None)
@given(files, st.booleans())
def test_any_file_is_read_or_refused_with_a_message(told: tuple[Format, bytes], pack: bool) -> None:
    form, content = told
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("log.inter" if form is Format.RECBOLE else "log")
        if pack and form is not Format.RECBOLE:
            path, content = path.with_name("log.gz"), gzip.compress(content)
        path.write_bytes(content)
        try:
            data = import_dataset(ImportRequest(str(path), form), now_ms=NOW)
        except DataError as error:
            assert error.where
            assert error.fix
            return
        data.save(Path(folder) / "data")
        loaded = Dataset.load(Path(folder) / "data")
        assert sequences(loaded).n_events <= data.events.height
        assert loaded.fingerprint == data.fingerprint


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["items", "users", "attributes"]),
    st.sampled_from(["csv", "jsonl", "parquet"]),
    side_tables,
)
def test_any_side_table_is_read_or_refused_with_a_message(option: str, ending: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log, side = Path(folder) / "log.csv", Path(folder) / f"side.{ending}"
        log.write_text("user_id,item_id\nu,a\n")
        side.write_bytes(content)
        request = ImportRequest(str(log), Format.CSV, **{option: side})  # type: ignore[arg-type]
        try:
            import_dataset(request, now_ms=NOW).save(Path(folder) / "data")
        except DataError as error:
            assert error.where
