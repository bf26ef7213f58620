"""Writes `docs/reference.md` from the code: `python -m service.reference`. A test keeps it up to date."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from service.app import create_app
from service.common.metrics import Metrics
from service.common.settings import DEFAULT_POLICIES, PREFIX, Settings
from service.policies.policies import DecodingSpec, Policies, Rule, Segment

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"

_INTRODUCTION = """\
# Reference

Written by `python -m service.reference`; do not edit by hand.

- [Settings](#settings)
- [Endpoints](#endpoints)
- [Metrics](#metrics)
- [Decoding policies](#decoding-policies)
"""
_SETTINGS = """\
## Settings

Environment variables of `gpt4rec serve`; its flags win over them. A secret may also come from a file, whose
path is given under the same name with `_FILE`. An unknown `GPT4REC_…` variable stops the start; in Kubernetes
set `enableServiceLinks: false`, or a Service called `gpt4rec` adds variables of that kind to every pod.
"""
_ENDPOINTS = """\
## Endpoints

Bodies, answers and problem documents are described in the OpenAPI document, `/openapi.json` (page: `/docs`).
Where keys are configured they are sent as `Authorization: Bearer …` or `X-API-Key: …`.
"""
_METRICS = """\
## Metrics

Of `/metrics`, one process each. No label ever holds a user or an item.
"""
_POLICIES = """\
## Decoding policies

The file that `GPT4REC_POLICIES` names, by default `service/policies/default.yaml`. Segments are tried in order; the
first whose rule holds is taken. A request may name a segment, or a decoding, itself.

Facts of a history that rules may bound: `events` (how many are kept), `recency_s` (seconds since the last
one), `category_entropy` (0: one category only; 1: never the same twice; all levels or tags of an item count) and
`repeat_share` (share of repeated items), the last two over the newest 50 events.
"""


def page() -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION,
        _SETTINGS,
        _table(("Variable", "Default", "Meaning"), _settings()),
        _ENDPOINTS,
        _table(("Endpoint", "Answers", "Meaning"), _endpoints()),
        _METRICS,
        _table(("Metric", "Type", "Labels", "Meaning"), _metrics()),
        _POLICIES,
        *_policies(),
    ]
    return "\n".join(parts)


def _settings() -> Iterable[Sequence[str]]:
    for name, field in Settings.model_fields.items():
        yield f"`{PREFIX}{name.upper()}`", _default(field), field.description or ""


def _endpoints() -> Iterable[Sequence[str]]:
    document = create_app(Settings(playground=True)).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = ", ".join(sorted(operation["responses"]))
            yield f"`{method.upper()} {path}`", statuses, operation["description"]


def _metrics() -> Iterable[Sequence[str]]:
    for value in vars(Metrics()).values():
        if isinstance(value, MetricWrapperBase):
            family = next(iter(value.describe()))
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in value._labelnames)
            yield f"`{name}`", family.type, labels, family.documentation


def _policies() -> Iterable[str]:
    titles: dict[type[BaseModel], str] = {
        Policies: "The file",
        Segment: "A segment (`segments[…]`)",
        Rule: "A rule (`when`)",
        DecodingSpec: "A decoding (`decoding`)",
    }
    for model, title in titles.items():
        yield f"### {title}\n"
        yield _table(("Field", "Default", "Meaning"), _fields(model))


def _fields(model: type[BaseModel]) -> Iterable[Sequence[str]]:
    for name, field in model.model_fields.items():
        yield f"`{name}`", _default(field), field.description or ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value == DEFAULT_POLICIES:
        value = "service/policies/default.yaml"
    return "–" if value is None or value in ("", ()) else f"`{value}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
