"""Draws that are always the same for the same thing: whether it is among a share."""

from __future__ import annotations

from hashlib import blake2b


def within_share(share: float, what: str, of: str) -> bool:
    """Returns whether something is among a share. A larger share holds what a smaller one holds.

    Args:
        share: 0 to 1.
        what: What the share is of, so that different shares are drawn apart.
        of: What is asked about: an id.
    """
    if share <= 0.0 or share >= 1.0:
        return share >= 1.0
    digest = blake2b(f"{what}\0{of}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64
