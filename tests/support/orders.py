"""Order models for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.artifact.scorers.order_weights import OrderWeights

NO_EFFECT: Mapping[str, float] = {"base": 0.0, "score": 1.0, "item": 0.0, "alike": 0.0, "follows": 0.0}


def order_weights(n: int = 6, **changes: Any) -> OrderWeights:
    """An order model in which everything has a part."""
    rng = np.random.default_rng(n)
    given: dict[str, Any] = {
        "method": "expected_reward", "examination": 1.0 / np.log2(np.arange(5) + 2.0), "leave": 0.2,
        "scale": np.array([0.5, 2.0]),
        "weights": {"base": -1.0, "score": 0.8, "item": 1.0, "alike": -0.6, "follows": 0.4},
        "item": rng.normal(size=n).astype(np.float32), "value": rng.uniform(0.5, 2.0, n).astype(np.float32),
        "group": rng.integers(-1, 3, n).astype(np.int32), "follows": rng.normal(size=(3, 3)).astype(np.float32),
    }  # fmt: skip
    return OrderWeights(**(given | changes))
