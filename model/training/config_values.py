"""Values of a configuration as users write them: a file, `key=value` assignments, and their types."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from model.errors import ConfigError


def read_file(file: Path) -> Mapping[str, Any]:
    """Reads a YAML or JSON file of settings; an empty one has none.

    Raises:
        ConfigError: The file cannot be read or holds something else.
    """
    try:
        values = yaml.safe_load(file.read_text("utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{file} must hold `key: value` pairs, not a {type(values).__name__}")
    return values


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parses `key=value` assignments whose values are YAML.

    Raises:
        ConfigError: An assignment has no `=`, or its value is not YAML.
    """
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment!r} is not key=value")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"--set {assignment[:200]!r}: {value[:200]!r} is not a value") from error
    return values


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turns `network: {window: 8}` into `network.window: 8`, and `methods` likewise."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("network", "methods") and isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[str(key)] = value
    return flat


def typed(key: str, value: Any, default: Any) -> Any:
    """Returns the value in the type of the setting's default.

    Raises:
        ConfigError: The value has another type.
    """
    expected = type(default)
    if expected is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # YAML reads 1e-3 as a string
            return float(value)
    if not isinstance(value, expected) or isinstance(value, bool) is not isinstance(default, bool):
        raise ConfigError(f"{key} must be {expected.__name__}, got {value!r}")
    return value


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Returns the message for an unknown key, with the known key that looks most like it."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown configuration key {key!r}{hint}"
