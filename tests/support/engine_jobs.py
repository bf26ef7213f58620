"""Jobs of the engine, varied in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, Job

J = TypeVar("J", DecodeJob, Job)


def requesting(job: J, **changes: Any) -> J:
    """The same job with `changes` to its list request."""
    return replace(job, request=replace(job.request, **changes))


def rank_by(engine: Engine, path: float, dense: float) -> None:
    """Has the engine rank everybody by these weights of path and dense score, and by no signal of items."""
    groups = len(engine.artifact.ranker.groups)
    engine.set_weights([(path, dense)] * groups, np.zeros((groups, engine.artifact.trie.n_items), np.float32))
