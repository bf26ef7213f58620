"""The parts of the cold-item measurement."""

from __future__ import annotations

# Questions for held-out items and for others by what is served, and for held-out ones by the generated path alone.
PARTS = {"cold": "cold items", "path": "cold items, path alone", "warm": "warm items"}
