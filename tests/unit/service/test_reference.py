"""Invariants 10 and 14: what the service imports, and what is documented."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from service import reference
from service.intake.intake_metrics import IntakeMetrics
from service.metrics.loop_metrics import LoopMetrics
from service.metrics.service_metrics import Metrics
from service.metrics.sink_metrics import SinkMetrics
from service.policies.policies import DecodingSpec, Exploration, Policies, Rule, Segment
from service.schemas.recommend_request import DecodingOverride, InlineEvent, RecommendRequest
from service.schemas.user_requests import Event, EventsRequest
from service.settings.kafka_settings import KafkaSettings
from service.settings.loop_settings import LoopSettings
from service.settings.service_settings import Settings
from service.settings.sink_settings import SinkSettings


def test_every_setting_metric_endpoint_and_policy_field_is_documented() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert page == reference.page(), "run: python -m service.reference"
    for name, field in Settings.model_fields.items():
        assert f"`GPT4REC_{name.upper()}`" in page
        assert field.description, name
    requests = (RecommendRequest, InlineEvent, DecodingOverride, EventsRequest, Event)
    for model in (Policies, Segment, Rule, DecodingSpec, Exploration, *requests):
        for name, field in model.model_fields.items():
            assert f"`{name}`" in page
            assert field.description, name
    for name, field in {
        **KafkaSettings.model_fields,
        **SinkSettings.model_fields,
        **LoopSettings.model_fields,
    }.items():
        assert f"`GPT4REC_{name.upper()}`" in page
        assert field.description, name
    intake = CollectorRegistry()
    IntakeMetrics(intake)
    SinkMetrics(intake)
    LoopMetrics(intake)
    for family in (*Metrics().registry.collect(), *intake.collect()):
        assert f"`{family.name}" in page
        assert family.documentation


def test_the_metric_families_are_those_of_the_contract() -> None:
    expected = {
        "request_duration_seconds", "deadline_missed", "event_loop_lag_seconds", "recommendations",
        "rules", "rule_cost", "stage_duration_seconds", "batch_size", "queue_depth",
        "inflight", "breaker_state", "fallback_mode",
        "events", "state_cache", "redis_errors", "model_info", "model_reload", "models_held",
        "model_bytes_held", "model_evictions", "model_reopenings", "models_evicted",
        "experiment_lists", "experiment_model_withheld",
        "shadow_requests", "shadow_overlap", "shadow_duration_seconds", "error_budget_burn_rate",
            "model_attempts", "rate_checks", "log_lines_dropped", "worker_replaced", "file_hangs",
            "filters_held", "filter_bytes", "filter_builds", "items_stored", "item_changes", "item_delay_seconds",
            "exposures", "recorded_events", "exposures_waiting", "exposures_trimmed_unread",
            "bodies_refused", "crowded", "deprecated_uses", "histories_missing", "redis_state", "unanswered_bytes",
            "watch", "watched", "watch_baseline", "watch_skipped", "drift", "drift_threshold", "drifted",
            "shown_items", "shown_categories", "ordered_lists", "kept_lists", "kept_list_bytes", "spans",
    }  # fmt: skip
    assert {f.name for f in Metrics().registry.collect()} == {f"gpt4rec_{name}" for name in expected}


@pytest.mark.parametrize(
    "module", ["service.app", "service.engine.baseline_engine", "service.cli", "service.cli.serve", "service.workers"]
)
def test_importing_service_imports_no_torch(module: str) -> None:
    script = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'polars', 'implicit', 'scipy', 'sklearn', 'onnx', 'model'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
