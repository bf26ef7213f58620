from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import polars as pl
import pytest

from model.data.errors import DataError, places, quoted
from model.data.files import read_bytes, read_parquet, read_text


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"user_id": ["u"], "item_id": ["i"]}).write_parquet(buffer)
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("log.csv", "user_id,item_id\n")
    return buffer.getvalue()


def test_gzip_is_taken_off(tmp_path: Path) -> None:
    assert read_text(_write(tmp_path / "log.csv.gz", gzip.compress("ü,b\n".encode(), mtime=0))) == "ü,b\n"


def test_a_byte_order_mark_is_taken_off(tmp_path: Path) -> None:
    assert read_text(_write(tmp_path / "log.csv", b"\xef\xbb\xbfa,b\n")) == "a,b\n"


@pytest.mark.parametrize(
    ("name", "content", "what", "mend"),
    [
        ("log.csv", b"", "is empty", "write it again"),
        ("log.csv", b" \n\n", "only blanks", "write the file|write it again"),
        ("log.csv.gz", b"user_id,item_id\n", "not gzip: text", "take the .gz off"),
        ("log.csv.gz", gzip.compress(b"user_id,item_id\n1,2\n", mtime=0)[:-6], "damaged", "again"),
        ("log.csv.gz", gzip.compress(b"", mtime=0), "holds nothing", "write it again"),
        ("log.csv", gzip.compress(b"a,b\n", mtime=0), "compressed with gzip", "mv log.csv log.csv.gz"),
        ("log.csv", _zip(), "a zip archive", "unpack it"),
        ("log.csv", _parquet(), "a parquet file", "--format parquet"),
        ("log.csv", b"\n<!DOCTYPE html><html>sign in</html>", "an HTML page", "log-in page"),
        ("log.csv", b"\xef\xbb\xbf<html>", "an HTML page", "log-in page"),
        ("log.csv", "user,item\n".encode("utf-16"), "UTF-16", "iconv -f utf-16"),
        ("log.csv", b"a,b\n\x00\x01\x02", "binary data", "UTF-8 text"),
        ("log.csv", "user,item\n1,Café\n".encode("latin-1"), "not UTF-8: byte 0xe9", "iconv -f windows-1252"),
        ("log.csv", b"user,item\n1,\x81\n", "not UTF-8", "iconv -f latin-1"),
    ],
)
def test_a_text_file_that_is_something_else_is_refused_with_a_way_out(
    tmp_path: Path, name: str, content: bytes, what: str, mend: str
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read_text(_write(tmp_path / name, content))
    assert str(tmp_path / name) in (caught.value.where or "")
    assert any(part in (caught.value.fix or "") for part in mend.split("|"))


def test_the_line_of_a_wrong_byte_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "u.item", b"\xef\xbb\xbfid,title\n1,Toy Story\n2,Les Mis\xe9rables\n")
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert caught.value.where == f"{path}, line 3"


@pytest.mark.parametrize(
    ("content", "what", "mend"),
    [
        (b"user_id,item_id\n1,2\n", "looks like text", "--format csv"),
        (_zip(), "looks like a zip archive", "again"),
        (_parquet()[:-10], "cut off", "again"),
        (b"PAR1" + b"\xff" * 40 + b"PAR1", "damaged", "again"),
        (b"", "is empty", "again"),
    ],
)
def test_a_parquet_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes, what: str, mend: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read_parquet(_write(tmp_path / "log.parquet", content))
    assert mend in (caught.value.fix or "")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_bytes(tmp_path / "absent")
    with pytest.raises(DataError, match="this is a folder"):
        read_bytes(tmp_path)


def test_messages_name_a_few_places_and_count_the_rest() -> None:
    assert places("log.csv", "line", [7]) == "log.csv, line 7"
    assert places("log.csv", "line", range(2, 9)) == "log.csv, lines 2, 3, 4, 5, 6 and 2 more"


def test_quoted_values_are_short_and_escaped() -> None:
    assert quoted(["a\tb", 5, "x" * 99, "more"]) == f"'a\\tb', 5, '{'x' * 37}...', …"
