"""The settings of the roles: which part of the work a process of `gpt4rec serve` does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.settings.environment import EnvironmentSettings


class RoleSettings(EnvironmentSettings):
    """Which role a process has, and the stream between the roles. `Settings` has these fields too."""

    role: Literal["all", "answer", "encode"] = Field(
        "all",
        description="`all` answers requests and encodes behind events; `answer` hands that encoding over to processes "
        "with the role `encode`, which answer no requests of frontends. See docs/fleet.md.",
    )
    encode_shards: int = Field(
        8,
        ge=1,
        le=256,
        description="Shards of the stream between the roles; in a cluster each may be on another server. Processes "
        "with the role `encode` read every number of shards that was ever written with.",
    )
    encode_cap: int = Field(
        50_000,
        ge=1,
        description="Entries that each of these shards keeps. Beyond it the oldest are trimmed, and the next request "
        "of their subject encodes.",
    )
    encode_batch_max: int = Field(
        64, ge=1, le=1000, description="Most histories that a process with the role `encode` takes at a time."
    )
    encode_poll_ms: float = Field(
        50.0,
        gt=0,
        le=10_000,
        description="How often a process with the role `encode` looks for new entries, unless there is a backlog.",
    )
    encode_patience_s: float = Field(
        10.0,
        ge=0.1,
        description="Entries that a process was given and has not finished after this time are taken over by another. "
        "Keep it well above `catch_up_timeout_ms`.",
    )
