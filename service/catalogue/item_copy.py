"""The stored items on this machine's disk, for a start while Redis is away: who was disabled stays so.

One JSON object a line: first the format, the epoch and the revision, then each record. A file of another format, or a
damaged one, counts as none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from service.common.atomic_files import write_aside
from service.store.items import StoredItem

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ItemCopy:
    """The stored items at one revision.

    Attributes:
        epoch: Of the stored items.
        revision: The newest change that they contain.
        records: The records.
    """

    epoch: str
    revision: int
    records: Sequence[StoredItem]

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all. Takes a while: not for the event loop.

        Raises:
            OSError: It cannot be written.
        """
        head = orjson.dumps({"format": _FORMAT, "epoch": self.epoch, "revision": self.revision})
        rows = (orjson.dumps([r.item_id, r.version, r.disabled, r.actor, r.fields]) for r in self.records)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, b"\n".join((head, *rows)) + b"\n")

    @classmethod
    def load(cls, path: Path) -> ItemCopy | None:
        """Reads a file that `save` wrote; None if there is none that can be read."""
        try:
            head, *lines = path.read_bytes().splitlines()
            told = orjson.loads(head)
            if told["format"] != _FORMAT:
                return None
            records = [_record(*orjson.loads(line)) for line in lines]
            return cls(str(told["epoch"]), int(told["revision"]), records)
        except (OSError, ValueError, TypeError, LookupError):
            return None


def _record(item_id: str, version: int, disabled: bool, actor: str, fields: dict[str, object]) -> StoredItem:
    return StoredItem(str(item_id), int(version), bool(disabled), str(actor), dict(fields))
