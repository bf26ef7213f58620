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
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from model.online.log_files import files_of
from model.online.log_schema import FILES, KINDS, SCHEMAS, SINCE_2, TIME_OF, Kind, LogError, empty
from service.common.atomic_files import naming

_HOUR_MS = 3_600_000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,120}")
_PLACE = re.compile(r"date=(\d{4})-(\d\d)-(\d\d)/hour=(\d\d)/[^/.][^/]*\.parquet$")
_FORMAT_KEY, _KIND_KEY = "gpt4rec_format", "gpt4rec_kind"
_READ = ("1", str(FILES))


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
        self._files = files_of(self.url)

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
            raise LogError(f"{kind} do not have the columns of format {FILES}: {error}") from error
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

    def names(self, kind: Kind, time_ms: int) -> list[str]:
        """Returns the names, without an ending, of the files of the hour that a moment is in."""
        return [Path(path).stem for path in self._files.names(_folder(kind, time_ms // _HOUR_MS))]

    def file(self, kind: Kind, path: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Returns the rows of one file.

        Raises:
            LogError: It has another format, or is damaged.
            FileNotFoundError: It is gone.
        """
        return self._rows(kind, path, list(SCHEMAS[kind]) if columns is None else list(columns))

    def rewrite(self, kind: Kind, path: str, rows: pl.DataFrame) -> None:
        """Replaces the rows of one file, which a reader sees as it was or as it is; without rows it is removed.

        Raises:
            OSError: The file cannot be written.
        """
        if len(rows):
            self._files.write(path, _bytes(kind, rows.match_to_schema(SCHEMAS[kind])))
        else:
            self.remove(path)

    def remove_unfinished(self) -> int:
        """Removes what a writer that died left beside the files, and returns how many; no other writer may be at work.

        Raises:
            OSError: The folder cannot be written.
        """
        return self._files.remove_unfinished()

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
                fix="give the folder that `gpt4rec loop sink` writes, which has a folder `exposures`",
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
                absent = [name for name in columns if name in SINCE_2] if said[_FORMAT_KEY] == "1" else []
                held = [name for name in columns if name not in absent]
                rows = pl.read_parquet(source, columns=held, memory_map=False)
                rows = rows.with_columns(pl.lit(None, SCHEMAS[kind][name]).alias(name) for name in absent)
            except pl.exceptions.PolarsError as error:
                raise LogError(
                    f"a file of the log is damaged: {error}",
                    where=f"{self.url}, {path}",
                    fix="write it again from the stream, or remove it",
                ) from error
        return rows.select(columns)

    def _require_format(self, kind: Kind, path: str, said: dict[str, str]) -> None:
        found, held = said.get(_FORMAT_KEY), said.get(_KIND_KEY)
        if found not in _READ:
            what = "no format of this project" if found is None else f"format {found}"
            raise LogError(
                f"a file of the log has {what}; this version reads format {FILES}",
                where=f"{self.url}, {path}",
                fix="read it with the version that wrote it" if found else "remove the file; the log did not write it",
            )
        if held != kind:
            raise LogError(f"a file of {held} lies among the {kind}", where=f"{self.url}, {path}", fix="move it back")


def _bytes(kind: Kind, rows: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    rows.write_parquet(content, compression="zstd", metadata={_FORMAT_KEY: str(FILES), _KIND_KEY: kind})
    return content.getvalue()


def _folder(kind: Kind, hour: int) -> str:
    moment = datetime.fromtimestamp(hour * 3600, UTC)
    return f"{kind}/date={moment:%Y-%m-%d}/hour={moment:%H}"


def _hour(year: int, month: int, day: int, hour: int) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) // 3600


def _touches(hour: int, from_ms: int | None, until_ms: int | None) -> bool:
    begins = hour * _HOUR_MS
    return (from_ms is None or begins + _HOUR_MS > from_ms) and (until_ms is None or begins < until_ms)
