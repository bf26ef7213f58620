"""Reads files that other programs wrote, and checks that they exist and hold what their names say.

Files are read whole, so that a bad file is refused before any of it is used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import polars as pl

from model.data.compression import DAMAGED, Compression, compression_in, compression_of
from model.data.errors import DataError, NothingInsideError

ZIP_MAGIC = b"PK\x03\x04"
PARQUET_MAGIC = b"PAR1"
# Bytes at the beginning of a file that tell UTF-16 without a byte order mark.
_WIDE = 32


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file, decompressed if the ending of its name says so.

    Raises:
        DataError: The file is missing, empty or damaged, or its name does not say that it is compressed.
    """
    if not path.exists():
        raise DataError("there is no such file", where=str(path), fix="check the path")
    if path.is_dir():
        raise DataError("expected a file, but this is a folder", where=str(path), fix="name a file in this folder")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=str(path), fix="check its permissions"
        ) from error
    if not content:
        raise NothingInsideError(
            "the file is empty", where=str(path), fix="write it again; the last copy may have failed"
        )
    if kind := compression_of(path.name):
        return _decompress(path, content, kind)
    if kind := compression_in(content):
        raise DataError(
            f"the file is compressed with {kind.name}, but its name does not end in {kind.endings[0]}",
            where=str(path),
            fix=f"rename it: mv {path.name} {path.name}{kind.endings[0]}",
        )
    return content


def _decompress(path: Path, content: bytes, kind: Compression) -> bytes:
    ending = path.suffix
    if not content.startswith(kind.magic):
        raise DataError(
            f"the name ends in {ending} but the file is not {kind.name}: {looks_like(content)}",
            where=str(path),
            fix=f"take the {ending} off its name, or download the file again",
        )
    try:
        plain = kind.decompress(content)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{error.name} is not installed, which reads {kind.name} files",
            where=str(path),
            fix=f"pip install {error.name}, or unpack the file",
        ) from error
    except DAMAGED as error:
        raise DataError(
            f"the {kind.name} file is damaged: {error}", where=str(path), fix="download or copy it again"
        ) from error
    if not plain:
        raise NothingInsideError(f"the {kind.name} file holds nothing", where=str(path), fix="write it again")
    return plain


def read_text(path: Path, otherwise: str | None = None) -> str:
    """Returns the content of a UTF-8 text file without its byte order mark.

    Args:
        path: The file.
        otherwise: The encoding of a file that is not UTF-8, where its publisher is known to use it.

    Raises:
        DataError: The file is missing, empty, damaged, blank or anything other than UTF-8 text.
    """
    content = read_bytes(path)
    kind = looks_like(content)
    if kind != "text":
        raise DataError(f"expected a text file, but this is {kind}", where=str(path), fix=_FIX_BY_KIND[kind])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if otherwise is not None:
            return content.decode(otherwise)
        # The decoder counts the position from behind the byte order mark.
        start = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, start) + 1
        guess = "latin-1" if 0x80 <= content[start] < 0xA0 and not _is_cp1252(content) else "windows-1252"
        raise DataError(
            f"the file is not UTF-8: byte 0x{content[start]:02x}",
            where=f"{path}, line {line}",
            fix=f"it may be {guess}: iconv -f {guess} -t utf-8 {path.name} > utf8-{path.name}",
        ) from error
    if not text.strip():
        raise NothingInsideError("the file holds only blanks", where=str(path), fix="write it again")
    return text


def read_parquet(path: Path) -> pl.DataFrame:
    """Reads a parquet file, which may be compressed once more as a whole.

    Raises:
        DataError: The file is missing, empty, damaged or not parquet.
    """
    packed = compression_of(path.name) is not None
    content = read_bytes(path) if packed or not path.is_file() else b""
    head, tail = (content[:4096], content[-4:]) if packed else _ends(path)
    if not head.startswith(PARQUET_MAGIC):
        if not packed:
            read_bytes(path)  # says what is wrong with an empty or compressed file
        kind = looks_like(head)
        raise DataError(
            f"this is not a parquet file: it looks like {kind}",
            where=str(path),
            fix=_INSTEAD_OF_PARQUET.get(kind, "download the file again"),
        )
    if tail != PARQUET_MAGIC:
        raise DataError("the parquet file is cut off", where=str(path), fix="download or copy it again")
    source = content if packed else path
    try:
        return pl.read_parquet(source, glob=False, hive_partitioning=False)
    except pl.exceptions.DuplicateError as error:
        raise DataError(
            f"column names are repeated: {error}", where=str(path), fix="give every column its own name"
        ) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable_parquet(source, path, error) from error  # polars panics over types it does not know


def read_parquet_rows(path: Path, start: int = 0, rows: int = 1) -> pl.DataFrame:
    """Reads some rows of a parquet file that is not compressed as a whole.

    Raises:
        DataError: As `read_parquet`.
    """
    head, tail = _ends(path) if path.is_file() else (b"", b"")
    if not head.startswith(PARQUET_MAGIC) or tail != PARQUET_MAGIC:
        return read_parquet(path).slice(start, rows)  # says what is wrong with the file
    try:
        return pl.scan_parquet(path, glob=False, hive_partitioning=False).slice(start, rows).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable_parquet(path, path, error) from error


def _unreadable_parquet(source: bytes | Path, path: Path, error: BaseException) -> DataError:
    """Tells a column of an unknown type from a damaged file, whose footer cannot be read either."""
    inside = re.search(r'ErrString\("(.*?)[".;]', str(error))  # the reason inside of a panic
    reason = inside[1] if inside else (str(error).splitlines() or ["unreadable"])[0]
    try:
        pl.read_parquet_metadata(source)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return DataError(f"the parquet file is damaged: {reason}", where=str(path), fix="download or copy it again")
    return DataError(
        f"the parquet file has a column that cannot be read: {reason}",
        where=str(path),
        fix="write its columns as text, numbers, dates in a known zone or lists; if it is damaged, copy it again",
    )


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first 4096 and the last 4 bytes of a file, which is left on the disk: polars reads what it needs of it."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4))
            return head, file.read(4)
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=str(path), fix="check its permissions"
        ) from error


_FIX_BY_KIND = {
    "a zip archive": "unpack it first (an .xlsx file is a zip archive too: save it as CSV)",
    "a parquet file": "use --format parquet for a log; give any other table a name that ends in .parquet",
    "a Git LFS pointer": "it names a file that was not downloaded: git lfs pull",
    "an HTML page": "the download returned an error or log-in page; download the file itself",
    "UTF-16 text": "convert it to UTF-8: iconv -f utf-16 -t utf-8 IN > OUT",
    "binary data": "give a UTF-8 text file, or download it again",
}

_INSTEAD_OF_PARQUET = {
    "text": "use --format csv, or jsonl for JSON",
    "a Git LFS pointer": _FIX_BY_KIND["a Git LFS pointer"],
}


def looks_like(content: bytes) -> str:
    """Guesses what a file holds from its first bytes; the result is "text" or what else it is, as in `_FIX_BY_KIND`."""
    head = content[:4096]
    if head.startswith(ZIP_MAGIC):
        return "a zip archive"
    if head.startswith(PARQUET_MAGIC):
        return "a parquet file"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "a Git LFS pointer"
    if b"\x00" in head:
        # SQL Server's bcp writes no byte order mark.
        return "UTF-16 text" if not any(head[1:_WIDE:2]) else "binary data"
    return "text"


def _is_cp1252(content: bytes) -> bool:
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True
