"""Digests that tell one catalogue of a model from another."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from service.artifact.array_types import BoolArray

# Items whose ids tell one catalogue of a model from another: items are only ever added at the end.
_NEWEST = 4096


def digest_of_ids(item_ids: Sequence[str]) -> blake2b:
    """Returns a digest of how many items a catalogue has, and of the newest of them."""
    newest = [item_ids[i] for i in range(max(0, len(item_ids) - _NEWEST), len(item_ids))]
    return blake2b(f"{len(item_ids)}\0".encode() + "\0".join(newest).encode(), digest_size=6)


def catalogue_digest(of_ids: blake2b, in_stock: BoolArray | None) -> str:
    """Returns the digest of a catalogue, 12 hex digits: of its items, and which of them are in stock."""
    digest = of_ids.copy()
    if in_stock is not None:
        digest.update(np.packbits(in_stock).tobytes())
    return digest.hexdigest()
