"""Faults as the metrics of three replicas show them, for the alert rules: each is one cause with many effects."""

from __future__ import annotations

from tests.support.alerts import counter, gauge

WELL, LASTS, AFTER = 40, 50, 50
MINUTES = WELL + LASTS + AFTER
_REPLICAS = ("a", "b", "c")


def _parts(well: float, ill: float) -> tuple[tuple[int, float], ...]:
    return (WELL, well), (LASTS, ill), (AFTER, well)


def _steady() -> dict[str, str]:
    """What stays as it is in each fault, unless that says otherwise."""
    series = {f'up{{job="gpt4rec", instance="{one}"}}': gauge((MINUTES, 1)) for one in _REPLICAS}
    series |= {
        f'gpt4rec_model_info{{job="gpt4rec", instance="{one}", version="v1"}}': gauge((MINUTES, 1)) for one in _REPLICAS
    }
    series |= {
        f'gpt4rec_fallback_mode{{job="gpt4rec", instance="{one}", mode="auto"}}': gauge((MINUTES, 1))
        for one in _REPLICAS
    }
    return series


def _counters(**named: tuple[tuple[int, float], ...]) -> dict[str, str]:
    """Counters of the job, by what they stand for."""
    names = {
        "full": 'recommendations_total{job="gpt4rec", source="gpt4rec", rung="full", reason=""}',
        "stateless": 'recommendations_total{job="gpt4rec", rung="popular", reason="state_unavailable"}',
        "broken": 'recommendations_total{job="gpt4rec", source="item_cf", rung="item_cf", reason="model_error"}',
        "held_back": 'recommendations_total{job="gpt4rec", source="item_cf", rung="item_cf", reason="breaker_open"}',
        "late_lists": 'recommendations_total{job="gpt4rec", source="item_cf", rung="item_cf", reason="latency_budget"}',
        "ok": 'model_attempts_total{job="gpt4rec", outcome="ok"}',
        "late": 'model_attempts_total{job="gpt4rec", outcome="late"}',
        "failed": 'model_attempts_total{job="gpt4rec", outcome="failed"}',
        "missed": 'deadline_missed_total{job="gpt4rec", rung="full"}',
        "redis_read": 'redis_errors_total{job="gpt4rec", operation="read"}',
        "accepted": 'events_total{job="gpt4rec", outcome="accepted"}',
        "refused": 'events_total{job="gpt4rec", outcome="failed"}',
        "lists_200": 'request_duration_seconds_count{job="gpt4rec", route="/recommend", status="200"}',
        "events_200": 'request_duration_seconds_count{job="gpt4rec", route="/events", status="200"}',
        "events_503": 'request_duration_seconds_count{job="gpt4rec", route="/events", status="503"}',
        "unrecorded": 'exposures_total{job="gpt4rec", outcome="dropped"}',
    }
    return {f"gpt4rec_{names[name]}": counter(*parts) for name, parts in named.items()}


def redis_down() -> dict[str, str]:
    """Redis is away: no histories, no events, no records, nothing from Kafka, no log."""
    return {
        **_steady(),
        **_counters(
            full=_parts(100, 0), stateless=_parts(0, 100), ok=_parts(100, 0), late=_parts(0, 0), failed=_parts(0, 0),
            redis_read=_parts(0, 120), accepted=_parts(20, 0), refused=_parts(0, 20),
            lists_200=_parts(100, 100), events_200=_parts(20, 0), events_503=_parts(0, 20), unrecorded=_parts(0, 90),
        ),
        'gpt4rec_intake_paused{job="gpt4rec-ingest"}': gauge(*_parts(0, 1)),
        'gpt4rec_sink_holding{job="gpt4rec-sink"}': gauge(*_parts(0, 1)),
    }  # fmt: skip


def replica_down() -> dict[str, str]:
    """One of three replicas is down; the load of all is too much for the two others."""
    series = {
        **_steady(),
        **_counters(
            full=_parts(100, 60), late_lists=_parts(0, 40), ok=_parts(100, 55), late=_parts(0, 45),
            failed=_parts(0, 0), missed=_parts(0, 3), lists_200=_parts(100, 100),
        ),
        'gpt4rec_breaker_state{job="gpt4rec", state="half_open"}': gauge(*_parts(0, 1)),
    }  # fmt: skip
    gone = ((WELL, 1.0), (LASTS, None), (AFTER, 1.0))
    series['up{job="gpt4rec", instance="c"}'] = gauge(*_parts(1, 0))
    series['gpt4rec_model_info{job="gpt4rec", instance="c", version="v1"}'] = gauge(*gone)
    series['gpt4rec_fallback_mode{job="gpt4rec", instance="c", mode="auto"}'] = gauge(*gone)
    return series


def model_broken() -> dict[str, str]:
    """A model that fails on each run; the breaker opens, and lets probes through until a rollback."""
    at_first, behind = (1, 0.0), LASTS - 1
    return {
        **_steady(),
        **_counters(
            full=_parts(100, 0), broken=((WELL, 0), (1, 100), (behind, 5), (AFTER, 0)),
            held_back=((WELL, 0), at_first, (behind, 95), (AFTER, 0)), ok=_parts(100, 0), late=_parts(0, 0),
            failed=((WELL, 0), (1, 100), (behind, 5), (AFTER, 0)), lists_200=_parts(100, 100),
        ),
        'gpt4rec_breaker_state{job="gpt4rec", state="open"}': gauge(*_parts(0, 1)),
    }  # fmt: skip


def space_flooded() -> dict[str, str]:
    """A flood on one of two spaces: most of its requests get popular items or 429, and the other one is as ever."""
    of, lists = 'job="gpt4rec", space="shoes"', 'recommendations_total{job="gpt4rec", space='
    named = {
        f'{lists}"books", rung="full", reason=""}}': (100, 100),
        f'{lists}"shoes", rung="full", reason=""}}': (100, 50),
        f'{lists}"shoes", rung="popular", reason="overload"}}': (0, 1000),
        f'crowded_total{{{of}, outcome="hurried"}}': (0, 1000),
        f'crowded_total{{{of}, outcome="refused"}}': (0, 4000),
        f'request_duration_seconds_count{{{of}, route="/recommend", status="200"}}': (100, 1050),
        f'request_duration_seconds_count{{{of}, route="", status="429"}}': (0, 4000),
    }
    return {**_steady(), **{f"gpt4rec_{name}": counter(*_parts(*growth)) for name, growth in named.items()}}


FAULTS = {
    "redis down": redis_down, "a replica down": replica_down, "model broken": model_broken,
    "a space flooded": space_flooded,
}  # fmt: skip
CAUSES = {
    "redis down": "Gpt4recRedisFails", "a replica down": "Gpt4recReplicasDown", "model broken": "Gpt4recModelOut",
    "a space flooded": "Gpt4recServedBudgetBurns",
}  # fmt: skip
