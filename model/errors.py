"""Errors of training configurations and run folders; both reach the user as a message, never as a trace."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run folder is missing, damaged or does not fit the data; the message says how to mend it."""


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key and what is allowed."""
