"""Settings of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Durability = Literal["memory", "aof", "replica"]

DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Settings of the store.

    Attributes:
        url: See `service.store.redis.redis_url`.
        prefix: Prefix of every key.
        history_cap: Events kept for each subject; at least the receptive field of every model that is served.
        seen_max: Items remembered beyond the log of each subject, so that they stay out of its lists.
        signals_cap: Signals kept for each subject, approximately.
        ttl_s: Lifetime of a log after its last event.
        state_ttl_s: Lifetime of an encoder state. It may be shorter, because states can be recomputed from the log.
        signals_ttl_s: Lifetime of the signals.
        read_timeout_ms: Time-out of a read.
        write_timeout_ms: Time-out of a write.
        durability: When an event counts as written: in the memory of Redis; on its disk (WAITAOF, Redis ≥ 7.2); or on
            `replicas` replicas (WAIT).
        durability_timeout_ms: Time that a write may additionally wait for its durability.
        replicas: Redis replicas that must have a write, for durability `replica`.
        max_connections: Commands that run at the same time.
        audit_cap: Entries kept in the audit log.
    """

    url: str
    prefix: str = "gpt4rec:"
    history_cap: int = 256
    seen_max: int = 1000
    signals_cap: int = 1000
    ttl_s: int = 90 * DAY_S
    state_ttl_s: int = 7 * DAY_S
    signals_ttl_s: int = 30 * DAY_S
    read_timeout_ms: float = 25
    write_timeout_ms: float = 250
    durability: Durability = "memory"
    durability_timeout_ms: int = 1500
    replicas: int = 1
    max_connections: int = 16
    audit_cap: int = 1000
