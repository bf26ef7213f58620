"""Splits a batch into runs of equal rows, in which a bad row fails alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from service.common.errors import ModelAttemptFailed, ModelError

J = TypeVar("J")
R = TypeVar("R")


def run_groups(
    jobs: Sequence[J], key: Callable[[J], Hashable], work: Callable[[Sequence[J]], Sequence[R]]
) -> list[R | Exception]:
    """Runs the jobs of each key together.

    If a group fails, its jobs are run one by one, so that only the culprits fail.

    Args:
        jobs: The jobs of a batch.
        key: Jobs with equal keys can share a run.
        work: Makes one run; returns a result for each of its jobs.

    Returns:
        A result, or a ModelError, for each job in order.
    """
    results: list[R | Exception] = [ModelError("not run")] * len(jobs)
    groups: dict[Hashable, list[int]] = {}
    for row, job in enumerate(jobs):
        groups.setdefault(key(job), []).append(row)
    for rows in groups.values():
        for row, result in zip(rows, _attempt([jobs[row] for row in rows], work), strict=True):
            results[row] = result
    return results


def result_of(outcome: R | Exception) -> R:
    """Returns the result of a job, or raises the error that it got instead."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _attempt(jobs: Sequence[J], work: Callable[[Sequence[J]], Sequence[R]]) -> Sequence[R | Exception]:
    try:
        return work(jobs)
    except Exception as error:
        if len(jobs) > 1:
            return [result for job in jobs for result in _attempt([job], work)]
        return [error if isinstance(error, ModelAttemptFailed) else ModelError(f"bad job: {error}")]
