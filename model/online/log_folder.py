"""The folder of a log: Parquet files by hour, each written whole, read by time range and column.

    exposures/date=2026-01-31/hour=07/NAME.parquet    by the time of the list
    events/…                                          by the time at which the event was received
    merges/…, erased/…                                by the time of the merge or erasure

Every file says in its metadata what it holds and in which format. The folder is local, or a URL that fsspec knows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import polars as pl

from model.online.log_schema import FORMAT, KINDS, SCHEMAS, TIME_OF, Kind, LogError, empty
from service.common.atomic_files import naming, write_aside

_HOUR_MS = 3_600_000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,120}")
_PLACE = re.compile(r"date=(\d{4})-(\d\d)-(\d\d)/hour=(\d\d)/[^/.][^/]*\.parquet$")
_FORMAT_KEY, _KIND_KEY = "gpt4rec_format", "gpt4rec_kind"


class _Files(Protocol):
    """Where the files lie. Paths are relative, with slashes."""

    def names(self, under: str) -> list[str]:
        """Returns the paths of all files below a folder, sorted; none if there is no folder."""

    def read(self, path: str) -> bytes | Path:
        """Returns the content of a file, or where it lies."""

    def write(self, path: str, content: bytes) -> None:
        """Writes a file whole, in place of one that was there."""

    def size(self, path: str) -> int:
        """Returns the bytes of a file."""

    def remove(self, path: str) -> None:
        """Removes a file, if it is there."""


@dataclass(frozen=True, slots=True)
class _LocalFiles:
    root: Path

    def names(self, under: str) -> list[str]:
        folder = self.root / under
        return sorted(path.relative_to(self.root).as_posix() for path in folder.rglob("*.parquet"))

    def read(self, path: str) -> Path:
        return self.root / path

    def write(self, path: str, content: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, content)

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _RemoteFiles:
    system: Any
    root: str

    def names(self, under: str) -> list[str]:
        self.system.invalidate_cache()
        try:
            found = self.system.find(f"{self.root}/{under}")
        except FileNotFoundError:
            return []
        return sorted(path[path.index(self.root) + len(self.root) + 1 :] for path in found)

    def read(self, path: str) -> bytes:
        content: bytes = self.system.cat_file(f"{self.root}/{path}")
        return content

    def write(self, path: str, content: bytes) -> None:
        place = PurePosixPath(self.root, path)
        self.system.makedirs(str(place.parent), exist_ok=True)
        aside = str(place.with_name(f".{place.name}.part"))
        self.system.pipe_file(aside, content)
        self.system.mv(aside, str(place))

    def size(self, path: str) -> int:
        return int(self.system.size(f"{self.root}/{path}"))

    def remove(self, path: str) -> None:
        if self.system.exists(f"{self.root}/{path}"):
            self.system.rm_file(f"{self.root}/{path}")


class LogFolder:
    """A folder of exposures, events, merges and erasures.

    Attributes:
        url: Where it is.
    """

    def __init__(self, url: str | Path) -> None:
        """Opens a folder; nothing is read yet.

        Args:
            url: A local folder, or a URL such as `s3://bucket/log`.

        Raises:
            LogError: The URL needs a package that is not installed.
        """
        self.url = str(url)
        self._files = _files_of(self.url)

    def write(self, kind: Kind, rows: pl.DataFrame, name: str) -> list[str]:
        """Writes rows, one file for each hour. Writing the same rows under the same name again changes nothing.

        Args:
            kind: What the rows are.
            rows: They have the columns of the kind.
            name: Name of the files, without an ending: letters, digits, `-` and `_`.

        Returns:
            The paths of the files, relative to the folder.

        Raises:
            LogError: The name or the columns do not fit.
            OSError: A file cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise LogError(f"{name!r} cannot name a file of the log: use letters, digits, - and _")
        try:
            rows = rows.match_to_schema(SCHEMAS[kind])
        except pl.exceptions.PolarsError as error:
            raise LogError(f"{kind} do not have the columns of format {FORMAT}: {error}") from error
        hours = rows.with_columns(__hour=pl.col(TIME_OF[kind]) // _HOUR_MS)
        if hours["__hour"].null_count():
            raise LogError(f"{kind} without a time ({TIME_OF[kind]}) cannot be written")
        paths = []
        for (hour,), part in hours.partition_by("__hour", as_dict=True, include_key=False).items():
            path = f"{_folder(kind, int(hour))}/{name}.parquet"
            self._files.write(path, _bytes(kind, part))
            paths.append(path)
        return sorted(paths)

    def read(
        self,
        kind: Kind,
        columns: Sequence[str] | None = None,
        *,
        from_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Yields the rows of a time range, a file at a time, in the order of their hours and names.

        Args:
            kind: What to read.
            columns: Names of the columns; None for all.
            from_ms: First moment of the range, Unix milliseconds; None for the beginning of the log.
            until_ms: Moment after the range; None for the end of the log.

        Raises:
            LogError: A file has another format, or is damaged.
        """
        time = TIME_OF[kind]
        wanted = list(SCHEMAS[kind]) if columns is None else list(columns)
        needed = wanted if time in wanted else [*wanted, time]
        for path in self.paths(kind, from_ms=from_ms, until_ms=until_ms):
            rows = self._rows(kind, path, needed)
            if from_ms is not None:
                rows = rows.filter(pl.col(time) >= from_ms)
            if until_ms is not None:
                rows = rows.filter(pl.col(time) < until_ms)
            if len(rows):
                yield rows.select(wanted)

    def read_all(
        self,
        kind: Kind,
        columns: Sequence[str] | None = None,
        *,
        from_ms: int | None = None,
        until_ms: int | None = None,
    ) -> pl.DataFrame:
        """Returns the rows of a time range as one table; see `read`."""
        return pl.concat([empty(kind, columns), *self.read(kind, columns, from_ms=from_ms, until_ms=until_ms)])

    def paths(self, kind: Kind, *, from_ms: int | None = None, until_ms: int | None = None) -> list[str]:
        """Returns the files whose hours touch a time range, in order; none that is still being written."""
        return [path for path, hour in self._hours(kind) if _touches(hour, from_ms, until_ms)]

    def size(self, kind: Kind, *, from_ms: int | None = None, until_ms: int | None = None) -> int:
        """Returns the bytes of the files whose hours touch a time range."""
        return sum(self._files.size(path) for path in self.paths(kind, from_ms=from_ms, until_ms=until_ms))

    def remove(self, path: str) -> None:
        """Removes one file; a file that is gone already is no error."""
        self._files.remove(path)

    def remove_before(self, time_ms: int) -> int:
        """Removes the files of whole hours before a moment, except erasures, and returns how many."""
        paths = [
            path
            for kind in KINDS
            if kind != "erased"
            for path, hour in self._hours(kind)
            if (hour + 1) * _HOUR_MS <= time_ms
        ]
        for path in paths:
            self.remove(path)
        return len(paths)

    def require_some(self) -> None:
        """Checks that the folder holds exposures.

        Raises:
            LogError: It holds none.
        """
        if not self.paths("exposures"):
            raise LogError(
                "the log holds no exposures",
                where=self.url,
                fix="give a folder laid out as in docs/loop.md, which has a folder `exposures`",
            )

    def _hours(self, kind: Kind) -> Iterator[tuple[str, int]]:
        for path in self._files.names(kind):
            place = _PLACE.search(path)
            if place:
                yield path, _hour(*map(int, place.groups()))

    def _rows(self, kind: Kind, path: str, columns: list[str]) -> pl.DataFrame:
        source = self._files.read(path)
        with naming(Path(path)):
            try:
                said = pl.read_parquet_metadata(io.BytesIO(source) if isinstance(source, bytes) else source)
                self._require_format(kind, path, said)
                rows = pl.read_parquet(source, columns=columns, memory_map=False)
            except pl.exceptions.PolarsError as error:
                raise LogError(
                    f"a file of the log is damaged: {error}",
                    where=f"{self.url}, {path}",
                    fix="write it again from the stream, or remove it",
                ) from error
        return rows.select(columns)

    def _require_format(self, kind: Kind, path: str, said: dict[str, str]) -> None:
        found, held = said.get(_FORMAT_KEY), said.get(_KIND_KEY)
        if found != str(FORMAT):
            what = "no format of this project" if found is None else f"format {found}"
            raise LogError(
                f"a file of the log has {what}; this version reads format {FORMAT}",
                where=f"{self.url}, {path}",
                fix="read it with the version that wrote it" if found else "remove the file; the log did not write it",
            )
        if held != kind:
            raise LogError(f"a file of {held} lies among the {kind}", where=f"{self.url}, {path}", fix="move it back")


def _files_of(url: str) -> _Files:
    if "://" not in url:
        return _LocalFiles(Path(url))
    if url.startswith("file://"):
        return _LocalFiles(Path(url.removeprefix("file://")))
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise LogError(
            "a log at a URL needs fsspec, which is not installed", where=url, fix="pip install 'gpt4rec[loop]'"
        ) from error
    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise LogError(f"the log cannot be opened: {error}", where=url, fix="install what the URL needs") from error
    return _RemoteFiles(system, root.rstrip("/"))


def _bytes(kind: Kind, rows: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    rows.write_parquet(content, compression="zstd", metadata={_FORMAT_KEY: str(FORMAT), _KIND_KEY: kind})
    return content.getvalue()


def _folder(kind: Kind, hour: int) -> str:
    moment = datetime.fromtimestamp(hour * 3600, UTC)
    return f"{kind}/date={moment:%Y-%m-%d}/hour={moment:%H}"


def _hour(year: int, month: int, day: int, hour: int) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) // 3600


def _touches(hour: int, from_ms: int | None, until_ms: int | None) -> bool:
    begins = hour * _HOUR_MS
    return (from_ms is None or begins + _HOUR_MS > from_ms) and (until_ms is None or begins < until_ms)
