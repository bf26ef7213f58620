"""Errors of configurations and run folders."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run folder that is missing, damaged or does not fit the data; the message says how to mend it."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what is allowed."""
