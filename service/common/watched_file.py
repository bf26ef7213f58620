"""Notices when a file has changed, so that its content is read again without a restart."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, ...]


class WatchedFile:
    """Compares a file with the version in use.

    It goes by the file's stamp (device, inode, size, and times of change), which also changes when the file is replaced
    by renaming, or behind a symbolic link, as Kubernetes and most editors do. The stamp is taken before the content is
    read, so a write in between is noticed the next time. A missing file has a stamp of its own.

    These calls touch the disk, and a mounted file system may hang: not for the event loop.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Stamp | None = None
        self._in_use: Stamp | None = None

    def changed(self) -> bool:
        """Returns whether the file is another than the version in use; at first, no version is."""
        self._seen = stamp_of(self.path)
        return self._seen != self._in_use

    def accept(self) -> None:
        """Takes the version that `changed` saw last as the one in use. Call it once its content has been read."""
        self._in_use = self._seen

    def forget(self) -> None:
        """Takes no version as the one in use: the file counts as changed until the next `accept`."""
        self._in_use = None


def stamp_of(path: Path) -> Stamp:
    """Returns what changes with the file; empty if there is no such file, or it cannot be looked at."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
