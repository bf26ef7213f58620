"""Errors of configurations, run folders, and of what is learned from them."""

from __future__ import annotations


def error_text(what: str, where: str | None, fix: str | None) -> str:
    """Formats an error for a terminal: what is wrong, then `where:` and `fix:` on lines of their own if given."""
    lines = [what]
    if where:
        lines.append(f"  where: {where}")
    if fix:
        lines.append(f"  fix:   {fix}")
    return "\n".join(lines)


class RunError(RuntimeError):
    """A run folder is missing, damaged or does not fit the data. The message says how to fix it."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(error_text(what, where, fix))


class LearningError(RuntimeError):
    """No weights can be learned from these values. The message names the signal and says how to go on."""

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(error_text(what, None, fix))


class ConfigError(ValueError):
    """A configuration cannot be used. The message names the key and the values it allows."""
