"""Whole jobs, from events to lists, over the `encode` and `decode` of any engine."""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.interface import EngineLike
from service.engine.jobs import DecodeJob, Job, JobResult


def run_jobs(engine: EngineLike, jobs: Sequence[Job]) -> list[JobResult | Exception]:
    """Encodes and decodes every job.

    Returns:
        A result for each job, in order. A job that cannot be run gets its own error and harms no other.
    """
    results: list[JobResult | Exception] = []
    states = engine.encode([job.encode for job in jobs])
    decode_jobs = [
        DecodeJob(h=state.h, request=job.request)
        for job, state in zip(jobs, states, strict=True)
        if not isinstance(state, Exception)
    ]
    lists = iter(engine.decode(decode_jobs))
    for state in states:
        if isinstance(state, Exception):
            results.append(state)
            continue
        decoded = next(lists)
        results.append(decoded if isinstance(decoded, Exception) else JobResult(state=state, decoded=decoded))
    return results
