"""Requests of a run, and the outcome of each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, due `due_s` seconds from the start; `label` names it in figures (by default its path)."""

    due_s: float
    path: str
    body: bytes = b""
    method: str = "POST"
    label: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go; `named` is the value of the Host header."""

    host: str
    port: int
    named: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request.

    Attributes:
        label: Name of the request in figures.
        due_s: Seconds from the start at which it was due.
        took_s: Seconds from then to its answer; None without an answer.
        status: HTTP status, or how the request failed.
        rung: Rung of a list.
        reason: Reason of a list.
        own_ms: Latency that the service itself reported.
    """

    label: str
    due_s: float
    took_s: float | None
    status: int | str
    rung: str | None = None
    reason: str | None = None
    own_ms: float | None = None


@dataclass(slots=True)
class Record:
    """One run, request by request. `began` is the `time.perf_counter` value from which due times count."""

    began: float = 0.0
    answers: list[Answer] = field(default_factory=list)
