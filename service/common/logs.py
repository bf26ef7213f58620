"""Structured logs: one JSON object a line on stderr.

A record never contains a secret. Ids of users, sessions and items are logged at the level `debug` only. A log line
never holds its caller up and never raises: see `service.process.output`.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import orjson
import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def _json(record: Any, **options: Any) -> str:
    try:
        return orjson.dumps(record, default=options.get("default")).decode()
    except TypeError:
        # A lone surrogate, as in a file name that is no UTF-8, or a number of more than 64 bits.
        return json.dumps(record, default=repr, skipkeys=True)


_CHAIN: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


# The processors and the stream of the latest `configure`; empty before it.
_IN_FORCE: list[tuple[list[Any], TextIO]] = []


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Routes structlog and the standard library's loggers (uvicorn's, redis') to one JSON stream.

    Args:
        level: The lowest level logged: debug, info, warning or error.
        stream: Where to write; stderr if None.
    """
    target = stream or sys.stderr
    processors = [*_CHAIN, structlog.processors.JSONRenderer(_json)]
    _IN_FORCE[:] = [(processors, target)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_CHAIN,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))


def dropped_notice(lines: int) -> bytes:
    """Returns the line that says how many lines could not be written before it."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    record = {"event": "log_lines_dropped", "lines": lines, "level": "warning", "timestamp": now}
    return orjson.dumps(record) + b"\n"


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """Returns a logger that uses the configuration in force when it is called, not when its module was imported."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(module=name))


class RequestLine:
    """The record of a request, at the level `info`. It is the line that a logger writes.

    A logger makes it step by step, which takes as long as a part of the answer.

    Args:
        name: Name of the module.
    """

    def __init__(self, name: str) -> None:
        # Bound once: the lazy logger would look up its configuration for every request.
        self._log, self._name = get(name).bind(), name
        processors, self._stream = _IN_FORCE[0] if _IN_FORCE else ([], sys.stderr)
        used = structlog.get_config()["processors"]
        self._processors, self._steps = used, len(processors) if used is processors else 0
        self.on = bool(self._log.is_enabled_for(logging.INFO))
        """Whether it is written."""

    def write(self, **fields: Any) -> None:
        """Writes the record."""
        if len(self._processors) != self._steps:  # those of others, as of a test that looks at records
            self._log.info("request", **fields)
            return
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        record = {"module": self._name, **fields, "event": "request", "level": "info", "timestamp": now}
        self._stream.write(f"{_json(record)}\n")
        self._stream.flush()


def where(error: BaseException) -> dict[str, Any]:
    """Returns the type and the code locations of an exception, without its text, which may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }
