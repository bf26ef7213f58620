"""Where the files of a log lie: a local folder, or a URL that fsspec knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from model.online.log_schema import LogError
from service.common.atomic_files import naming, write_durably

# What is not yet a file of the log: `.NAME.parquet.PID`, `.NAME.parquet.part`.
_ASIDE = re.compile(r"\..+\.parquet\.\w+")


class Files(Protocol):
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

    def remove_unfinished(self) -> int:
        """Removes what writers that died have left, and returns how many."""


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
        with naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, content)

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def remove_unfinished(self) -> int:
        left = [path for path in self.root.rglob(".*") if _ASIDE.fullmatch(path.name)]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


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

    def remove_unfinished(self) -> int:
        left = [path for path in self.names("") if _ASIDE.fullmatch(PurePosixPath(path).name)]
        for path in left:
            self.remove(path)
        return len(left)


def files_of(url: str) -> Files:
    """Returns the files of a local folder or a URL.

    Raises:
        LogError: The URL needs a package that is not installed.
    """
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
