"""Writes `docs/reference.md` from the code: `python -m service.reference`. A test checks that it is up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from service.app import create_app
from service.common.markdown import markdown_table
from service.intake.intake_metrics import IntakeMetrics
from service.metrics.encode_metrics import EncodeMetrics
from service.metrics.families import MetricGroup
from service.metrics.loop_metrics import LoopMetrics
from service.metrics.service_metrics import Metrics
from service.metrics.sink_metrics import SinkMetrics
from service.policies.policies import DecodingSpec, Exploration, Policies, Rule, Segment
from service.rules.spec import Apart, AtLeast, AtMost, Boost, Diversity, Pin
from service.schemas.deprecations import DEPRECATIONS
from service.schemas.recommend_request import DecodingOverride, InlineEvent, RecommendRequest
from service.schemas.user_requests import Event, EventsRequest
from service.settings.environment import PREFIX
from service.settings.kafka_settings import KafkaSettings
from service.settings.loop_settings import LoopSettings
from service.settings.service_settings import DEFAULT_POLICIES, Settings
from service.settings.sink_settings import SinkSettings
from service.spaces.spaces_file import OVERRIDABLE, Entry

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"

_INTRODUCTION = """\
# Reference

Written by `python -m service.reference`; do not edit by hand.

- [Settings](#settings)
- [Settings of Kafka](#settings-of-kafka)
- [Settings of the sink](#settings-of-the-sink)
- [Settings of the loop](#settings-of-the-loop)
- [The file of the spaces](#the-file-of-the-spaces)
- [Endpoints](#endpoints)
- [Deprecated](#deprecated)
- [Requests](#requests)
- [Metrics](#metrics)
- [Metrics of the roles](#metrics-of-the-roles)
- [Metrics of the intake](#metrics-of-the-intake)
- [Metrics of the sink](#metrics-of-the-sink)
- [Metrics of the loop](#metrics-of-the-loop)
- [Decoding policies](#decoding-policies)
"""
_SETTINGS = """\
## Settings

Environment variables of `gpt4rec serve`; its flags take precedence. A secret may also come from a file: give its path
in the variable with the suffix `_FILE`. The service does not start if there is an unknown `GPT4REC_…` variable. In
Kubernetes set `enableServiceLinks: false`: otherwise a Service named `gpt4rec` adds such variables to every pod.
"""
_KAFKA = """\
## Settings of Kafka

Environment variables of `gpt4rec ingest kafka`, which reads those of `gpt4rec serve` too: see [Kafka](loop.md#kafka).
"""
_SINK = """\
## Settings of the sink

Environment variables of `gpt4rec loop sink`, which reads `GPT4REC_REDIS_URL`, `GPT4REC_REDIS_PREFIX`, the log level,
the time to drain, the tokens of the metrics, and the topic of exposures with how to reach its brokers too: see
[the sink](loop.md#the-sink).
"""
_LOOP = """\
## Settings of the loop

Environment variables of `gpt4rec loop run`, which reads `GPT4REC_OPS_URL`, `GPT4REC_OPS_TOKEN`, the log level and the
tokens of the metrics too; the commands that it runs read those of their own: see [the loop](loop.md#the-cycle).
"""
_SPACES = """\
## The file of the spaces

The file that `GPT4REC_SPACES` names has one mapping, `spaces`, with an entry for each space beside the default one; the
key is its name. Paths are relative to the folder of the file: see [spaces](fleet.md#spaces).
"""
_ENDPOINTS = """\
## Endpoints

The OpenAPI document, `/openapi.json` (page: `/docs`), describes bodies, answers and problem documents. Keys are sent
as `Authorization: Bearer …` or `X-API-Key: …`. Every path is served below `/v1` too: see [the API](api.md).
"""
_DEPRECATED = """\
## Deprecated

What will stop working, and what takes its place: see [what is deprecated](api.md#what-is-deprecated).
"""
_REQUESTS = """\
## Requests

What the bodies of the two requests that frontends send may contain; all others are in the OpenAPI document. A policy
has defaults of its own: see [a decoding](#a-decoding-decoding).
"""
_METRICS = """\
## Metrics

The metrics of `/metrics`, for each process. No label ever contains a user or an item.
"""
_ROLE_METRICS = """\
## Metrics of the roles

What processes with the role `answer` or `encode` show besides: see [roles](fleet.md#roles-answer-and-encode).
"""
_INTAKE_METRICS = """\
## Metrics of the intake

What `gpt4rec ingest kafka` shows on its own port, beside the metrics of the service.
"""
_SINK_METRICS = """\
## Metrics of the sink

What `gpt4rec loop sink` shows on its own port.
"""
_LOOP_METRICS = """\
## Metrics of the loop

What `gpt4rec loop run` shows on its own port.
"""
_POLICIES = """\
## Decoding policies

The file that `GPT4REC_POLICIES` names, by default `service/policies/default.yaml`. Segments are tried in order; the
first one whose rule holds is used. A request may name a segment or a decoding itself.

Rules may bound these facts of a history: `events` (how many are kept), `recency_s` (seconds since the last one),
`category_entropy` (0: only one category; 1: never the same category twice; all levels or tags of an item count) and
`repeat_share` (share of repeated items). The last two use the newest 50 events.
"""
_REQUEST_TITLES: dict[type[BaseModel], str] = {
    RecommendRequest: "`POST /recommend`",
    InlineEvent: "An event of the session (`events[…]` of `/recommend`)",
    DecodingOverride: "A decoding for one answer (`decoding` of `/recommend`)",
    EventsRequest: "`POST /events`",
    Event: "An event to store (`events[…]` of `/events`)",
}
_POLICY_TITLES: dict[type[BaseModel], str] = {
    Policies: "The file",
    Segment: "A segment (`segments[…]`)",
    Rule: "A rule (`when`)",
    DecodingSpec: "A decoding (`decoding`)",
    Exploration: "An exploration (`explore`)",
    Pin: "A rule of lists (`rules[…]`): `kind: pin`",
    Boost: "A rule of lists: `kind: boost`, `kind: bury`",
    AtMost: "A rule of lists: `kind: at_most`",
    AtLeast: "A rule of lists: `kind: at_least`",
    Apart: "A rule of lists: `kind: apart`",
    Diversity: "A diversity (`diversity`)",
}


def page() -> str:
    """Returns the whole page."""
    parts = [
        _INTRODUCTION,
        _SETTINGS,
        markdown_table(("Variable", "Default", "Meaning"), _settings(Settings)),
        _KAFKA,
        markdown_table(("Variable", "Default", "Meaning"), _settings(KafkaSettings)),
        _SINK,
        markdown_table(("Variable", "Default", "Meaning"), _settings(SinkSettings)),
        _LOOP,
        markdown_table(("Variable", "Default", "Meaning"), _settings(LoopSettings)),
        _SPACES,
        *_tables({Entry: "A space (`spaces[…]`)"}),
        f"`settings` may name: {', '.join(f'`{name}`' for name in sorted(OVERRIDABLE))}.\n",
        _ENDPOINTS,
        markdown_table(("Endpoint", "Operation", "Answers", "Meaning"), _endpoints()),
        _DEPRECATED,
        *_deprecated(),
        _REQUESTS,
        *_tables(_REQUEST_TITLES),
        _METRICS,
        markdown_table(("Metric", "Type", "Labels", "Meaning"), _metrics(Metrics())),
        _ROLE_METRICS,
        markdown_table(("Metric", "Type", "Labels", "Meaning"), _metrics(EncodeMetrics(CollectorRegistry()))),
        _INTAKE_METRICS,
        markdown_table(("Metric", "Type", "Labels", "Meaning"), _metrics(IntakeMetrics(CollectorRegistry()))),
        _SINK_METRICS,
        markdown_table(("Metric", "Type", "Labels", "Meaning"), _metrics(SinkMetrics(CollectorRegistry()))),
        _LOOP_METRICS,
        markdown_table(("Metric", "Type", "Labels", "Meaning"), _metrics(LoopMetrics(CollectorRegistry()))),
        _POLICIES,
        *_tables(_POLICY_TITLES),
    ]
    return "\n".join(parts)


def _settings(kind: type[BaseModel]) -> Iterable[Sequence[str]]:
    for name, field in kind.model_fields.items():
        yield f"`{PREFIX}{name.upper()}`", _default(field), field.description or ""


def _endpoints() -> Iterable[Sequence[str]]:
    document = create_app(Settings(playground=True)).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = ", ".join(sorted(operation["responses"]))
            yield f"`{method.upper()} {path}`", f"`{operation['operationId']}`", statuses, operation["description"]


def _deprecated() -> Iterable[str]:
    rows = [
        (f"`{one.name}`", one.declared_in, f"{one.removed_in}, not before {one.sunset}", one.instead)
        for one in DEPRECATIONS.entries
    ]
    yield markdown_table(("What", "Since", "Removed in", "Instead"), rows) if rows else "Nothing is.\n"


def _metrics(metrics: Metrics | EncodeMetrics | IntakeMetrics | SinkMetrics | LoopMetrics) -> Iterable[Sequence[str]]:
    for metric in _each_metric(metrics):
        family = next(iter(metric.describe()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metrics.label_names.get(family.name, ()))
        yield f"`{name}`", family.type, labels, family.documentation


def _each_metric(holder: object) -> Iterator[MetricWrapperBase]:
    for value in vars(holder).values():
        if isinstance(value, MetricWrapperBase):
            yield value
        elif isinstance(value, MetricGroup):
            yield from _each_metric(value)


def _tables(titles: Mapping[type[BaseModel], str]) -> Iterable[str]:
    for model, title in titles.items():
        yield f"### {title}\n"
        yield markdown_table(("Field", "Default", "Meaning"), _fields(model))


def _fields(model: type[BaseModel]) -> Iterable[Sequence[str]]:
    for name, field in model.model_fields.items():
        yield f"`{name}`", _default(field), field.description or ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value == DEFAULT_POLICIES:
        value = "service/policies/default.yaml"
    return "–" if value is None or value in ("", (), [], {}) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
