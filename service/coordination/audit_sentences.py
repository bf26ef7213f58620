"""The audit in words: one sentence for each entry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Fields that are part of every entry, or that the sentences word.
_WORDED = {
    "id", "at", "actor", "action", "reason", "version", "changed_at", "mode", "expires_at", "model", "instead_of",
    "instead", "cause", "origin", "segments", "experiment", "change",
    "of", "names",
}  # fmt: skip


def sentence(entry: Mapping[str, Any]) -> str:
    """Returns what was done and why, e.g. `forced the mode fallback until 2026-01-01T12:00:00Z: overload`.

    Args:
        entry: An entry of the audit. One of another release may have other fields: they are listed by name.
    """
    done = _done(entry)
    more = ", ".join(f"{name} {value}" for name, value in entry.items() if name not in _WORDED and value is not None)
    reason = entry.get("reason")
    return f"{done}{f' ({more})' if more else ''}{f': {reason}' if reason else ''}"


def _done(entry: Mapping[str, Any]) -> str:
    action = entry.get("action")
    if action == "fallback":
        until = f" until {entry['expires_at']}" if entry.get("expires_at") else ""
        mode = entry.get("mode")
        return "returned to the mode auto" if mode == "auto" else f"forced the mode {mode}{until}"
    if action == "model":
        instead = entry.get("instead_of")
        return f"activated the model {entry.get('model')}{f' instead of {instead}' if instead else ''}"
    if action == "model_refused":
        return (
            f"tried to activate the model {entry.get('model')}, which was refused ({entry.get('cause')}); "
            f"{entry.get('instead')} stays"
        )
    if action == "experiments":
        name = entry.get("experiment")
        return f"changed the {entry.get('change')}" if name is None else f"experiment {name}: {entry.get('change')}"
    if action == "features":
        names = ", ".join(map(str, entry.get("names") or ()))
        return f"{entry.get('change')} the features of a {entry.get('of')}{f': {names}' if names else ''}"
    if action == "policies":
        names = ", ".join(map(str, entry.get("segments") or ()))
        if entry.get("origin") == "file":
            return "returned to the policies of the file"
        return f"set the policies{f' of the segments {names}' if names else ''}"
    return f"changed {action}"
