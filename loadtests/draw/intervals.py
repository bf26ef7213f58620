"""Formats means over seeds and paired differences. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIGNIFICANT = 0.05


def mean_of_seeds(figure: Mapping[str, Any]) -> str:
    """Formats a mean over seeds, with half the width of its interval if it has one."""
    half = figure["half_width"]
    return f"{figure['mean']:.4f}" + ("" if half is None else f" ± {half:.4f}")


def difference(row: Mapping[str, Any], digits: int = 4) -> str:
    """Formats a difference with its bootstrap interval; a star if Holm's correction leaves it significant at 5 %."""
    each = (f"{row[name]:+.{digits}f}" for name in ("difference", "low", "high"))
    star = " *" if row.get("p_holm", 1.0) < SIGNIFICANT else ""
    return "{} ({} … {})".format(*each) + star
