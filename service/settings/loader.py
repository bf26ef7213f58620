"""Reads the settings from flags, the environment and files of secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from service.common.errors import SettingsError
from service.settings.environment import PREFIX, reject_unknown
from service.settings.kafka_settings import KafkaSettings
from service.settings.loop_settings import LoopSettings
from service.settings.service_settings import Settings, variable_names
from service.settings.sink_settings import SinkSettings

S = TypeVar("S", bound=BaseSettings)


def load(**flags: Any) -> Settings:
    """Reads the settings from the environment.

    Args:
        flags: Values that take precedence, by name; those that are None are left out.

    Raises:
        SettingsError: A variable is unknown, a value is bad or the file of a secret cannot be read. The message names
            the setting, and never contains the value of a secret.
    """
    settings = _read(Settings, flags)
    if settings.deadline_ms > settings.deadline_max_ms:
        raise SettingsError(f"{PREFIX}DEADLINE_MS is above {PREFIX}DEADLINE_MAX_MS")
    if settings.receiving_mib * 2**20 < 2 * settings.max_body_bytes:
        raise SettingsError(f"{PREFIX}RECEIVING_MIB holds less than two bodies of {PREFIX}MAX_BODY_BYTES")
    if settings.role == "encode" and settings.redis_url.get_secret_value() == "embedded":
        raise SettingsError(
            f"{PREFIX}REDIS_URL: the role encode reads what processes with the role answer write, and an embedded "
            "Redis would be its own; name theirs (an embedded one: unix://<data folder>/valkey.sock)"
        )
    return settings


def load_kafka(**flags: Any) -> KafkaSettings:
    """Reads the settings of Kafka, as `load` reads those of the service.

    Raises:
        SettingsError: As of `load`; or no broker is named.
    """
    settings = _read(KafkaSettings, flags)
    if not settings.kafka_brokers.strip():
        raise SettingsError(f"{PREFIX}KAFKA_BROKERS: name at least one broker, host:9092")
    return settings


def load_sink(**flags: Any) -> SinkSettings:
    """Reads the settings of the sink, as `load` reads those of the service.

    Raises:
        SettingsError: As of `load`; or no folder is named.
    """
    settings = _read(SinkSettings, flags)
    if not settings.sink_log.strip():
        raise SettingsError(f"{PREFIX}SINK_LOG: name the folder of the log")
    return settings


def load_loop(**flags: Any) -> LoopSettings:
    """Reads the settings of the loop, as `load` reads those of the service.

    Raises:
        SettingsError: As of `load`; or a folder is not named, or the steps of the canary do not ascend to 1.
    """
    settings = load_work(**flags)
    for name, what in (("loop_log", "the log"), ("loop_artifacts", "artefacts that the service serves one of")):
        if not getattr(settings, name).strip():
            raise SettingsError(f"{PREFIX}{name.upper()}: name the folder of {what}")
    try:
        steps = settings.steps
    except ValueError as error:
        raise SettingsError(f"{PREFIX}LOOP_CANARY_STEPS: {error}") from None
    if steps != sorted(set(steps)) or not 0.0 < steps[0] <= steps[-1] <= 1.0:
        raise SettingsError(f"{PREFIX}LOOP_CANARY_STEPS: steps must be above 0, at most 1, and ascending")
    return settings


def load_work(**flags: Any) -> LoopSettings:
    """Reads the settings of the loop for who only looks at its work folder.

    Raises:
        SettingsError: As of `load`; or the work folder is not named.
    """
    settings = _read(LoopSettings, flags)
    if not settings.loop_work.strip():
        raise SettingsError(f"{PREFIX}LOOP_WORK: name the folder of the cycles (--work)")
    return settings


def load_exposures_topic() -> KafkaSettings | None:
    """Reads the settings of Kafka for who writes exposures to a topic; None if no topic is named.

    Raises:
        SettingsError: As of `load_kafka`.
    """
    return load_kafka() if _read(KafkaSettings, {}).kafka_exposures_topic else None


def _read(kind: type[S], flags: Mapping[str, Any]) -> S:
    reject_unknown(os.environ, variable_names())
    try:
        return kind(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = (f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False))
        raise SettingsError("; ".join(faults)) from None


def _variable(loc: tuple[int | str, ...]) -> str:
    return PREFIX + str(loc[0]).upper() if loc else PREFIX + "…"
