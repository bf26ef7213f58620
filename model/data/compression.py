"""Decompresses files by the ending of their names: gzip, zstd, bzip2 and xz."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast


@dataclass(frozen=True)
class Compression:
    """A way in which files are compressed.

    Attributes:
        name: What people call it.
        endings: Endings of the names of such files; the first is suggested.
        magic: The first bytes of such files.
        decompress: Returns the plain content; raises one of `DAMAGED` if the content is damaged.
    """

    name: str
    endings: tuple[str, ...]
    magic: bytes
    decompress: Callable[[bytes], bytes]


def _zstd(content: bytes) -> bytes:
    import zstandard  # only files that need it pay for loading it

    plain = []
    while content:  # a file may consist of several frames
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            plain.append(frame.decompress(content))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        if not frame.eof:
            raise ValueError("the file ends in the middle of its data")
        content = frame.unused_data
    return b"".join(plain)


COMPRESSIONS = (
    Compression("gzip", (".gz",), b"\x1f\x8b", gzip.decompress),
    Compression("zstd", (".zst", ".zstd"), b"\x28\xb5\x2f\xfd", _zstd),
    Compression("bzip2", (".bz2",), b"BZh", bz2.decompress),
    Compression("xz", (".xz",), b"\xfd7zXZ\x00", lzma.decompress),
)
# What `decompress` raises.
DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


def compression_of(name: str) -> Compression | None:
    """Returns the compression that the ending of a file's name says, or None for a plain file."""
    return next((kind for kind in COMPRESSIONS if name.lower().endswith(kind.endings)), None)


def compression_in(content: bytes) -> Compression | None:
    """Returns the compression that the first bytes of a file show, or None for a plain file."""
    return next((kind for kind in COMPRESSIONS if content.startswith(kind.magic)), None)


def opened(path: Path) -> BinaryIO:
    """Opens a file for reading its plain content, whatever the ending of its name says of its compression."""
    kind = compression_of(path.name)
    match kind.name if kind else None:
        case "gzip":
            return cast("BinaryIO", gzip.open(path, "rb"))
        case "bzip2":
            return cast("BinaryIO", bz2.open(path, "rb"))
        case "xz":
            return cast("BinaryIO", lzma.open(path, "rb"))
        case "zstd":
            import zstandard  # only files that need it pay for loading it

            reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)
            return cast("BinaryIO", reader)
        case _:
            return path.open("rb")


def plain_name(path: Path) -> str:
    """Returns the name of a file without the ending of its compression, such as `log.csv` for `log.csv.zst`."""
    kind = compression_of(path.name)
    if kind is None:
        return path.name
    return next(path.name[: -len(ending)] for ending in kind.endings if path.name.lower().endswith(ending))
