"""Jobs of the engine, varied in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from service.engine.jobs import DecodeJob, Job

J = TypeVar("J", DecodeJob, Job)


def requesting(job: J, **changes: Any) -> J:
    """The same job with `changes` to its list request."""
    return replace(job, request=replace(job.request, **changes))
