"""Files of arrays that are mapped into memory instead of read.

A file is an uncompressed `.npz` whose members start at multiples of 64 bytes, so the arrays of a large catalogue can be
mapped: loading takes no time, pages are read when they are touched, and several processes share them. `numpy.load`
reads the same files.

The mapping is of the file itself. If the file is replaced by a rename or deleted, processes that have it open keep the
old content. If it is written to in place, they see the change; if it is shortened in place, touching the missing part
ends the process (SIGBUS). So files up to `READ_BYTES_MAX` are read instead: that costs little, and later changes to the
file cannot do harm.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact.array_types import Array

ALIGNMENT = 64
READ_BYTES_MAX = 16 * 2**20

_LOCAL_HEADER = 30
_ZIP64_EXTRA = 20  # bytes that zipfile adds to the local header of a member that may be large
_PADDING_ID = 0x4750  # an extra field of our own, which other readers skip
_LENGTHS_AT = 26  # offset, in a local header, of the lengths of name and extra field


class ArrayFileError(ValueError):
    """The file was not written by `save_arrays`, or is damaged."""


def save_arrays(path: Path, **arrays: Any) -> None:
    """Writes named arrays; the same arrays give the same bytes.

    Raises:
        ValueError: An array holds objects.
    """
    with path.open("wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            head = raw.tell() + _LOCAL_HEADER + len(member.filename.encode()) + _ZIP64_EXTRA + 4
            padding = -head % ALIGNMENT
            member.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
            with file.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asanyarray(array), allow_pickle=False)


def map_arrays(path: Path) -> dict[str, Array]:
    """Returns all arrays of a file, read-only.

    A file of more than `READ_BYTES_MAX` is mapped and must not be changed in place afterwards. Only the structure is
    verified; verifying checksums is left to the caller.

    Raises:
        ArrayFileError: The file is damaged, compressed, or holds something other than plain arrays.
        OSError: The file cannot be read.
    """
    with path.open("rb") as raw:
        try:
            with zipfile.ZipFile(raw) as file:
                members = file.infolist()
            whole = _whole(raw)
            return {member.filename.removesuffix(".npy"): _mapped(whole, member) for member in members}
        except (ValueError, TypeError, EOFError, LookupError, SyntaxError, struct.error, zipfile.BadZipFile) as error:
            raise ArrayFileError(f"{path.name} is damaged: {type(error).__name__}: {error}") from error


def _whole(raw: io.BufferedReader) -> memoryview:
    """Returns the file's bytes, read-only and page-aligned. Raises ValueError if the file is empty."""
    size = os.fstat(raw.fileno()).st_size
    if size > READ_BYTES_MAX:
        return memoryview(mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ))
    own = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    raw.seek(0)
    if raw.readinto(own) != size:
        raise ValueError("the file was shortened while it was read")
    return memoryview(own).toreadonly()


def _mapped(whole: memoryview, member: zipfile.ZipInfo) -> Array:
    if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename} is not a stored array")
    at = member.header_offset
    if bytes(whole[at : at + 4]) != b"PK\x03\x04":
        raise ValueError(f"{member.filename} has no header at the place that the directory gives")
    name, extra = struct.unpack_from("<HH", whole, at + _LENGTHS_AT)
    start = at + _LOCAL_HEADER + name + extra
    head = io.BytesIO(whole[start : start + 4096])
    version = np.lib.format.read_magic(head)
    if version != (1, 0):
        raise ValueError(f"{member.filename} has an array header of version {version}; this version reads (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError(f"{member.filename} is not a plain array in row order")
    count = int(np.prod(shape, dtype=np.int64))
    if head.tell() + count * dtype.itemsize != member.file_size:
        raise ValueError(f"the size of {member.filename} differs from its header")
    if count == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(whole, dtype, count, start + head.tell()).reshape(shape)
