"""Chooses entries of the audit by who made the change, what was changed, and words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.coordination.audit_sentences import sentence

# Entries that are gone through.
AUDIT_MAX = 1000


def chosen(
    entries: Sequence[Mapping[str, Any]], *, actor: str | None, action: str | None, words: str, limit: int
) -> dict[str, Any]:
    """Returns the entries that match, and what there is to choose from.

    Args:
        entries: The entries, newest first.
        actor: Who made the change; None for anybody.
        action: What kind of thing was changed; None for any.
        words: What the sentence of the entry must contain, each word somewhere, in any case.
        limit: Most entries returned.
    """
    wanted = words.casefold().split()
    found = []
    for entry in entries:
        if actor not in (None, entry.get("actor")) or action not in (None, entry.get("action")):
            continue
        text = sentence(entry)
        if all(word in text.casefold() for word in wanted):
            found.append({**entry, "text": text})
    return {
        "entries": found[:limit],
        "actors": sorted({str(entry["actor"]) for entry in entries if "actor" in entry}),
        "actions": sorted({str(entry["action"]) for entry in entries if "action" in entry}),
    }
