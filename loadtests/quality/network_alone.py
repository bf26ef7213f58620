"""Lists by the network alone: by the probability of the token path, or by a sum of that and the dense score."""

from __future__ import annotations

import numpy as np

from service.engine.engine import Engine


def rank_by_path(engine: Engine) -> None:
    """Makes an engine rank by the path alone from now on; requests must come without signals of their users."""
    rank_by_network(engine, 1.0, 0.0)
    engine.set_joined_candidates(False)


def rank_by_network(engine: Engine, path: float, dense: float) -> None:
    """Makes an engine rank everybody by these weights of path and dense score, and by no signal of items."""
    parts = engine.artifact
    groups, items = len(parts.ranker.groups), len(parts.catalogue)
    engine.set_weights([(path, dense)] * groups, np.zeros((groups, items), np.float32))
