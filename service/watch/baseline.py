"""What lists and traffic were like when the model was made: an entry of the manifest (format 1).

The export computes it (`export.watch_baseline`): the distribution of each statistic over the lists of validation
questions, or over the training log, and how far from it a window of so many subjects comes by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.artifact.array_types import Float64Array
from service.watch.statistics import SCORE_BINS, STATISTICS

ENTRY = "watch_baseline"
FORMAT = 1


class WatchBaselineError(ValueError):
    """The entry of the manifest cannot be used; the message says why."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """The distribution of a statistic.

    Attributes:
        bins: Names of its bins.
        shares: [bins] float64, which add up to 1.
        subjects: Number of subjects that it comes from.
        sizes: [sizes] effective numbers of subjects of a window, ascending.
        thresholds: [sizes] Jensen–Shannon divergences in bits that a window of such a size hardly ever reaches.
    """

    bins: tuple[str, ...]
    shares: Float64Array
    subjects: int
    sizes: Sequence[float]
    thresholds: Sequence[float]

    def threshold(self, size: float) -> float | None:
        """Returns the threshold of a window, interpolated between logarithms; None if it is too small to say.

        Args:
            size: Effective number of its subjects.
        """
        if size < self.sizes[0]:
            return None
        return math.exp(float(np.interp(math.log(size), np.log(self.sizes), np.log(self.thresholds))))

    def to_json(self) -> dict[str, Any]:
        """Returns the distribution as the manifest has it."""
        return {
            "bins": list(self.bins),
            "shares": [round(float(share), 9) for share in self.shares],
            "subjects": self.subjects,
            "sizes": [float(size) for size in self.sizes],
            "thresholds": [float(f"{threshold:.6g}") for threshold in self.thresholds],
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Distribution:
        """Reads what `to_json` returned. Raises ValueError, KeyError or TypeError for anything else."""
        shares = np.array(entry["shares"], np.float64)
        sizes, thresholds = [float(v) for v in entry["sizes"]], [float(v) for v in entry["thresholds"]]
        bins = tuple(str(name) for name in entry["bins"])
        if shares.shape != (len(bins),) or not np.isfinite(shares).all() or (shares < 0).any():
            raise ValueError("there is not one share for each bin")
        if abs(float(shares.sum()) - 1.0) > 1e-6:
            raise ValueError("the shares do not add up to 1")
        if not sizes or len(sizes) != len(thresholds) or sizes != sorted(sizes) or min(*sizes, *thresholds) <= 0:
            raise ValueError("there is not one threshold above 0 for each size")
        return cls(bins, shares, int(entry["subjects"]), sizes, thresholds)


@dataclass(frozen=True, eq=False)
class WatchBaseline:
    """The distributions of a model.

    Attributes:
        distributions: By statistic; one that the data tell nothing about is missing.
        score_edges: [9] scores between the bins of `list_scores`, ascending.
    """

    distributions: Mapping[str, Distribution]
    score_edges: Float64Array

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of the manifest."""
        statistics = {name: one.to_json() for name, one in self.distributions.items()}
        edges = [float(edge) for edge in self.score_edges]
        return {"format": FORMAT, "score_edges": edges, "statistics": statistics}


def read_baseline(manifest: Mapping[str, Any], bins: Mapping[str, tuple[str, ...]]) -> WatchBaseline | None:
    """Returns the baseline that a manifest holds; None if it has none.

    Args:
        manifest: The manifest.
        bins: The bins of each statistic, as this version counts them.

    Raises:
        WatchBaselineError: It is of another format, damaged, or has other bins.
    """
    entry = manifest.get(ENTRY)
    if entry is None:
        return None
    if not isinstance(entry, Mapping) or entry.get("format") != FORMAT:
        found = entry.get("format") if isinstance(entry, Mapping) else entry
        raise WatchBaselineError(f"{ENTRY} is of format {found!r}, this service reads {FORMAT}; export the model again")
    try:
        read = {str(name): Distribution.from_json(one) for name, one in entry["statistics"].items()}
        edges = np.array(entry["score_edges"], np.float64)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WatchBaselineError(f"{ENTRY} cannot be read ({error}); export the model again") from error
    if edges.shape != (SCORE_BINS - 1,):
        raise WatchBaselineError(f"{ENTRY} has {edges.size} edges of scores, not {SCORE_BINS - 1}")
    for name, one in read.items():
        if name not in STATISTICS or one.bins != bins[name]:
            raise WatchBaselineError(f"{ENTRY}: {name} has other bins than this service counts; export the model again")
    return WatchBaseline(read, edges)
