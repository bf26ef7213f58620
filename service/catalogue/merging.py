"""What an item is by all sources: stored fields before the updates file, and that before the export, field by field.

A disabled item is never listed, whatever the other sources say. What was stored and is deleted again lets the others
show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.catalogue.updates_file import NewItem, Updates, described
from service.common import logs
from service.store.items import StoredItem

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Merged:
    """An item.

    Attributes:
        item: Its fields, and what places it if it is a new one.
        vector: Its vector; empty without one.
        hidden: Whether it is not listed, whatever its stock and window say.
    """

    item: NewItem
    hidden: bool


def merged(exported: Catalogue, item_id: str, file: Updates, record: StoredItem | None) -> Merged:
    """Returns what an item is.

    Args:
        exported: The catalogue as exported.
        item_id: The item.
        file: The content of the updates file.
        record: What is stored of it.
    """
    stored = {} if record is None else record.fields
    row = file.new.get(item_id)
    index = exported.index.get(item_id)
    if index is None:
        item = CatalogueItem(item_id) if row is None else row.item
    else:
        item = replace(exported.item(index), **file.changed.get(item_id, {}))
    try:
        item = replace(item, **described(stored, exported))
    except ValueError as error:
        log.warning("stored_item_skipped", item_id=item_id, cause=str(error))
        stored = {}
    if stored.get("in_stock") and item.stock == 0 and stored.get("stock") is None:
        item = replace(item, stock=None)  # as in the file: whoever says only that it is there does not count pieces
    like = tuple(stored["like"]) if stored.get("like") else () if row is None else row.like
    in_stock = stored.get("in_stock")
    gone = item_id in file.out_of_stock if in_stock is None else not in_stock
    nobody = index is None and row is None and not stored
    disabled = record is not None and record.disabled
    new = NewItem(item, like, tuple(stored.get("vector") or ()), stored.get("text") or "")
    return Merged(new, disabled or gone or nobody)


def differing(before: Updates, now: Updates) -> set[str]:
    """Returns the items about which two contents of the file say different things."""
    found: set[str] = set(before.out_of_stock ^ now.out_of_stock)
    for old, new in ((before.new, now.new), (before.changed, now.changed)):
        found |= {item_id for item_id in old.keys() | new.keys() if old.get(item_id) != new.get(item_id)}
    return found
