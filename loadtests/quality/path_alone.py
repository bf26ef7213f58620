"""Generation alone: lists by the probability of the token path, without the dense score and the other signals."""

from __future__ import annotations

import numpy as np

from service.engine.engine import Engine


def rank_by_path(engine: Engine) -> None:
    """Makes an engine rank by the path alone from now on; requests must come without signals of their users."""
    parts = engine.artifact
    groups, items = len(parts.ranker.groups), len(parts.catalogue)
    engine.set_weights([(1.0, 0.0)] * groups, np.zeros((groups, items), np.float32))
    engine.set_joined_candidates(False)
