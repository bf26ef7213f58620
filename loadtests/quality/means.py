"""Means over seeds, and correction for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from model.evaluation.bootstrap import holm


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the mean, and half the width of Student's 95 % interval; None for a single value."""
    half = None
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return {"mean": float(np.mean(values)), "half_width": half}


def with_holm(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds `p_holm` to the rows: Holm's correction over all of them."""
    return [row | {"p_holm": p} for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True)]
