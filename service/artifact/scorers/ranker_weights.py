"""The entry `ranker` of the manifest: which signals an artefact has, and their weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from service.artifact.scorers.scorer_files import require
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY, signal_file

Weights = Mapping[str, float]

PATH, DENSE = "path", "dense"
DEFAULT_GROUP = "default"
# Weights where nothing tells what else should count: the dense score ranks alone.
DENSE_ALONE: Weights = {DENSE: 1.0}
# A manifest names files, so a name must not lead out of the folder.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SIGNALS_MAX, _GROUPS_MAX = 64, 64
# Scores are float32, in which a larger weight leaves no digit for any other signal, or no finite score.
_WEIGHT_MAX = 1e9


@dataclass(frozen=True, slots=True)
class RankerWeights:
    """Signals and their weights.

    Attributes:
        signals: Names of the signals, which are also the names of their files.
        groups: Weight of each signal, `path` and `dense` among them, by group of users; the first group is `default`. A
            signal without a weight has the weight 0.
        without_network: Weight of each signal where the network does not answer.
        about: What else the manifest says of the weights: how they were learned.
    """

    signals: tuple[str, ...]
    groups: Mapping[str, Weights]
    without_network: Weights = field(default_factory=lambda: {ITEM_CF: 1.0})
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for values that do not fit the description above."""
        require(len(self.signals) <= _SIGNALS_MAX, f"there are more than {_SIGNALS_MAX} signals")
        for name in self.signals:
            require(_NAME.fullmatch(name) is not None and name not in (PATH, DENSE), f"{name!r} cannot name a signal")
        require(len(set(self.signals)) == len(self.signals), "two signals have the same name")
        require({ITEM_CF, POPULARITY} <= set(self.signals), f"the signals {ITEM_CF} and {POPULARITY} must be there")
        require(0 < len(self.groups) <= _GROUPS_MAX, f"there must be 1 … {_GROUPS_MAX} groups of weights")
        first = next(iter(self.groups))
        require(first == DEFAULT_GROUP, f"the first group of weights must be {DEFAULT_GROUP!r}, not {first!r}")
        known = {PATH, DENSE, *self.signals}
        for weights in (*self.groups.values(), self.without_network):
            unknown = sorted(set(weights) - known)
            require(not unknown, f"there are weights of {', '.join(unknown)}, but no such signals")
            require(all(math.isfinite(weight) for weight in weights.values()), "weights must be finite")
            require(
                all(abs(weight) <= _WEIGHT_MAX for weight in weights.values()),
                f"weights must not exceed {_WEIGHT_MAX:g}",
            )
        require(
            not any(self.without_network.get(name) for name in (PATH, DENSE)),
            "without the network, path and dense score have no weight",
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the signals' files."""
        return tuple(signal_file(name) for name in self.signals)

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of the manifest."""
        return {
            **self.about,
            "signals": list(self.signals),
            "groups": [{"name": group, "weights": dict(weights)} for group, weights in self.groups.items()],
            "without_network": dict(self.without_network),
        }

    @classmethod
    def from_json(cls, entry: Any) -> Self:
        """Reads the entry of a manifest.

        Raises:
            ValueError: It does not fit the description above.
        """
        require(isinstance(entry, Mapping), "it is not an object")
        try:
            signals = tuple(str(name) for name in entry["signals"])
            groups = {
                str(group["name"]): {str(name): float(weight) for name, weight in group["weights"].items()}
                for group in entry["groups"]
            }
            without = {str(name): float(weight) for name, weight in entry["without_network"].items()}
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks a value, or has one of another type: {error!r}") from error
        require(len(groups) == len(entry["groups"]), "two groups have the same name")
        about = {name: entry[name] for name in entry if name not in ("signals", "groups", "without_network")}
        return cls(signals, groups, without, about)
