"""Schemas of the answers about the service itself: what is here, its health and its versions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.schemas.answer import Answer


class IndexAnswer(Answer):
    """What is here."""

    request_id: str
    name: str
    version: str
    description: str
    links: dict[str, str] = Field(description="Paths by name; those of pages that are switched off are left out.")


class HealthAnswer(Answer):
    """Liveness of the process."""

    request_id: str
    status: Literal["ok"]
    engine: bool = Field(description="Whether the engine threads are alive and not stuck.")


class ReadyAnswer(Answer):
    """Readiness of the process, check by check."""

    request_id: str
    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[str, bool] = Field(description="`redis` is true if a write and a script work.")
    redis_cause: str | None = Field(description="Why Redis cannot be used; null if it can.")


class VersionAnswer(Answer):
    """Versions of the code and of the model."""

    request_id: str
    version: str
    git_commit: str
    model_version: str
    artifact: str | None
    space: str | None = Field(None, description="The space that the request means, where there are several.")
