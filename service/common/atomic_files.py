"""Writes of files: whole or not at all, with errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# How libraries written in Rust report an error of the operating system.
_FOREIGN = re.compile(r"\(os error (\d+)\)")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file or folder in errors of the operating system that do not name one, as those of a full disk do not.

    Args:
        path: What is written.

    Raises:
        OSError: What the block raised, or what a library raised for it, with the path.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or _foreign_number(error)
        if error.filename is None and number:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    except Exception as error:
        number = _foreign_number(error)
        if not number:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _foreign_number(error: Exception) -> int | None:
    found = _FOREIGN.search(str(error))
    return int(found.group(1)) if found else None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a file beside `path` to write, and renames it at the end, so that a reader never sees half of it.

    Several processes may write the same file: each uses a temporary name of its own. A failure leaves nothing behind.

    Args:
        path: The file to replace.

    Raises:
        OSError: The file cannot be written.
    """
    if path.exists() and not path.is_file():  # a device or a pipe, such as /dev/stdout, is written in place
        with naming(path):
            yield path
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            yield aside
            aside.replace(path)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Checks, before long work, that a file can be written: its folder is there, and the disk takes a few bytes.

    Args:
        path: The file that will be written; it is left as it is.

    Raises:
        OSError: The file cannot be written, or the path is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        aside.write_bytes(b"\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_aside(path: Path, content: bytes) -> None:
    """Replaces a file by new content, as `replacing` does.

    Args:
        path: The file to replace.
        content: Its new content.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as aside:
        try:
            aside.write_bytes(content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file as `write_aside` does; when it returns, the file outlives a crash of the machine.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as aside, naming(path), aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name
    finally:
        os.close(folder)


def save_aside(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes an array in numpy's own format, as `write_aside` does.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_aside(path, content.getvalue())
