"""Opening files that others wrote: is it there, is it what its name says, is it readable text?

Files are read whole: what is refused is refused before anything is made of it.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import polars as pl

from model.data.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
PARQUET_MAGIC = b"PAR1"


def read_bytes(path: Path) -> bytes:
    """Content of a file, gzip taken off. Raises `DataError` where it is missing, empty or damaged."""
    if not path.exists():
        raise DataError("there is no such file", where=str(path), mend="check the path")
    if path.is_dir():
        raise DataError("a file is expected here, this is a folder", where=str(path), mend="name the file in it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=str(path), mend="check its rights"
        ) from error
    if not content:
        raise DataError("the file is empty", where=str(path), mend="write it again; the copy may have failed")
    if path.suffix.lower() == ".gz":
        return _gunzip(path, content)
    if content.startswith(GZIP_MAGIC):
        raise DataError(
            "the file is compressed with gzip, its name does not say so",
            where=str(path),
            mend=f"rename it: mv {path.name} {path.name}.gz",
        )
    return content


def _gunzip(path: Path, content: bytes) -> bytes:
    if not content.startswith(GZIP_MAGIC):
        raise DataError(
            f"the name ends in .gz but the file is not gzip: {_looks_like(content)}",
            where=str(path),
            mend="take the .gz off its name, or download it again",
        )
    try:
        plain = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the gzip file is damaged: {error}", where=str(path), mend="download or copy it again"
        ) from error
    if not plain:
        raise DataError("the gzip file holds nothing", where=str(path), mend="write it again")
    return plain


def read_text(path: Path) -> str:
    """Content of a UTF-8 text file, a byte order mark taken off. Raises `DataError` where it is anything
    else."""
    content = read_bytes(path)
    kind = _looks_like(content)
    if kind != "text":
        raise DataError(f"a text file is expected, this is {kind}", where=str(path), mend=_MEND_KIND[kind])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The position is counted after the mark, if there was one.
        start = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, start) + 1
        guess = "latin-1" if 0x80 <= content[start] < 0xA0 and not _is_cp1252(content) else "windows-1252"
        raise DataError(
            f"the file is not UTF-8: byte 0x{content[start]:02x}",
            where=f"{path}, line {line}",
            mend=f"it may be {guess}: iconv -f {guess} -t utf-8 {path.name} > utf8-{path.name}",
        ) from error
    if not text.strip():
        raise DataError("the file holds only blanks", where=str(path), mend="write it again")
    return text


def read_parquet(path: Path) -> pl.DataFrame:
    """A parquet table. Raises `DataError` where the file is not one."""
    content = read_bytes(path)
    if not content.startswith(PARQUET_MAGIC):
        kind = _looks_like(content)
        raise DataError(
            f"this is no parquet file (its magic is missing): it looks like {kind}",
            where=str(path),
            mend="choose --format csv" if kind == "text" else "download it again",
        )
    if not content.endswith(PARQUET_MAGIC):
        raise DataError("the parquet file is cut off", where=str(path), mend="download or copy it again")
    try:
        return pl.read_parquet(content)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the parquet file is damaged: {error}", where=str(path), mend="download or copy it again"
        ) from error


_MEND_KIND = {
    "a zip archive": "unpack it first (an .xlsx is a zip too: save it as CSV)",
    "a parquet file": "choose --format parquet, or name it .parquet",
    "an HTML page": "the download gave an error or log-in page; get the file itself",
    "UTF-16 text": "write it as UTF-8: iconv -f utf-16 -t utf-8 IN > OUT",
    "binary data": "give a UTF-8 text file",
}


def _looks_like(content: bytes) -> str:
    """What a file holds, by its first bytes."""
    head = content[:4096]
    if head.startswith(ZIP_MAGIC):
        return "a zip archive"
    if head.startswith(PARQUET_MAGIC):
        return "a parquet file"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if b"\x00" in head:
        return "binary data"
    return "text"


def _is_cp1252(content: bytes) -> bool:
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True
