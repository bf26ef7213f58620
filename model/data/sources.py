"""Finds the files that SOURCE names: files, folders, patterns, folders named by a value (hive), the standard input."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from model.data.compression import compression_in, plain_name
from model.data.errors import DataError
from model.data.formats import Format
from service.common.atomic_files import naming

STDIN = "-"
_TEXT = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".psv")
_PARQUET = (".parquet", ".pq", ".parq")
_JSON = (".jsonl", ".ndjson", ".json")
# Format → endings of the files that belong to it in a folder.
_ENDINGS = {
    Format.CSV: _TEXT,
    Format.PARQUET: _PARQUET,
    Format.JSONL: _JSON,
    Format.GA4: (*_JSON, *_PARQUET),
    Format.TAOBAO: _TEXT,
    Format.SHOPIFY: _TEXT,
}
# What Hive, Spark and Athena write for a missing value of a partition.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        path: Where it lies.
        partitions: Column → value, of folders such as `day=2025-03-01` above it.
    """

    path: Path
    partitions: dict[str, str | None] = field(default_factory=dict)


@contextmanager
def stdin_spooled(sources: Sequence[str]) -> Iterator[list[str]]:
    """Copies the standard input, where `-` names it, to a temporary file that can be looked at twice.

    Yields:
        The sources, with the name of the file in the place of `-`.
    """
    if STDIN not in sources:
        yield list(sources)
        return
    with tempfile.TemporaryDirectory(prefix="gpt4rec-stdin-") as folder:
        path = Path(folder) / "stdin"
        with naming(path), path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        if not path.stat().st_size:
            raise DataError(
                "the standard input is empty",
                where=f"SOURCE {STDIN}",
                fix="pipe a log into the command; if one was, look at the program that writes it",
            )
        with path.open("rb") as file:
            kind = compression_in(file.read(8))
        path = path.rename(path.with_name(f"stdin{kind.endings[0]}")) if kind else path
        yield [str(path) if source == STDIN else source for source in sources]


def find_files(sources: Sequence[str], form: Format) -> list[SourceFile]:
    """Returns the files of the sources, each folder and pattern in the order of names.

    Args:
        sources: Files, folders and patterns (`logs/*.csv`, `logs/**/*.csv`).
        form: The format, which says what files of a folder belong to the source.

    Raises:
        DataError: A pattern or a folder holds no file of this format.
    """
    files = [file for source in sources for file in _expand(source, form)]
    repeated = [str(path) for path, times in Counter(file.path for file in files).items() if times > 1]
    if repeated:
        raise DataError("a file is named more than once", where=", ".join(repeated[:3]), fix="name each file once")
    return files


def _expand(source: str, form: Format) -> list[SourceFile]:
    path = Path(source)
    if path.is_dir():
        return _in_folder(path, form)
    if path.exists() or not glob.has_magic(source):
        return [SourceFile(path, _partitions(path.parent.parts))]
    found = sorted(Path(name) for name in glob.glob(source, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    files = [file for name in found for file in (_in_folder(name, form) if name.is_dir() else [SourceFile(name)])]
    if not files:
        raise DataError("no file matches the pattern", where=source, fix="check the path and the pattern")
    return [SourceFile(file.path, _partitions(file.path.parent.parts) | file.partitions) for file in files]


def _in_folder(folder: Path, form: Format) -> list[SourceFile]:
    def hidden(path: Path) -> bool:
        return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)

    inside = sorted(path for path in folder.rglob("*") if path.is_file() and not hidden(path))
    files = [path for path in inside if plain_name(path).lower().endswith(_ENDINGS[form])]
    if not files:
        found = ", ".join(path.name for path in inside[:5]) or "nothing"
        raise DataError(
            f"the folder holds no file of the format {form}; it holds {found}",
            where=str(folder),
            fix=f"name the files themselves; a folder is searched for {', '.join(_ENDINGS[form])}",
        )
    return [SourceFile(path, _partitions(path.relative_to(folder).parts[:-1])) for path in files]


def _partitions(folders: Sequence[str]) -> dict[str, str | None]:
    """Returns the column and value of each folder that is named `column=value`."""
    pairs = (part.partition("=") for part in folders)
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, equals, value in pairs if equals}
