"""Reads the settings from flags, the environment and files of secrets."""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError

from service.common.environment import PREFIX, reject_unknown
from service.common.errors import SettingsError
from service.common.settings import Settings, variable_names


def load(**flags: Any) -> Settings:
    """Reads the settings from the environment.

    Args:
        flags: Values that take precedence, by name; those that are None are left out.

    Raises:
        SettingsError: A variable is unknown, a value is bad or the file of a secret cannot be read. The message names
            the setting, and never contains the value of a secret.
    """
    reject_unknown(os.environ, variable_names())
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = (f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False))
        raise SettingsError("; ".join(faults)) from None
    if settings.deadline_ms > settings.deadline_max_ms:
        raise SettingsError(f"{PREFIX}DEADLINE_MS is above {PREFIX}DEADLINE_MAX_MS")
    if settings.receiving_mib * 2**20 < 2 * settings.max_body_bytes:
        raise SettingsError(f"{PREFIX}RECEIVING_MIB holds less than two bodies of {PREFIX}MAX_BODY_BYTES")
    return settings


def _variable(loc: tuple[int | str, ...]) -> str:
    return PREFIX + str(loc[0]).upper() if loc else PREFIX + "…"
