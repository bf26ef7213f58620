"""The order model of an artefact: what the order of a list is worth (`order.npz`, format 1).

    P(look at position p) = e_p · P(still there),   still there after a click: 1 − leave
    P(click given a look) = σ(base + Σ_f w_f · x_f),   x_f: what is known of the item, and of what stands above it
    value of a click      = one number for each item

`gpt4rec order learn` writes it (`model/slate/`), and only where it was found to be better. An artefact without the file
lists by score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Array, Float64Array, FloatArray
from service.artifact.arrays import ArrayFileError, map_arrays
from service.artifact.scorers.scorer_files import ScorerFileError, Shape, load_scorer, require, save_scorer

KIND = "order"
FORMAT = 1
ORDER_FILE = "order.npz"
# expected_reward: the order with the largest expected reward; policy: position by position, what the policy prefers.
Method = Literal["expected_reward", "policy"]
METHODS: tuple[Method, ...] = get_args(Method)
# base: a constant; score: the standardised score; item: the item's own column; alike, follows: what stands above.
FEATURES = ("base", "score", "item", "alike", "follows")
POSITIONS_MAX = 256
GROUPS_MAX = 1024
NO_GROUP = -1

_ARRAYS: Mapping[str, Shape] = {
    "order_format": (np.int64, 0), "examination": (np.float64, 1), "leave": (np.float64, 0), "scale": (np.float64, 1),
    "weights": (np.float64, 1), "item": (np.float32, 1), "value": (np.float32, 1), "group": (np.int32, 1),
    "follows": (np.float32, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class OrderWeights:
    """What was learned about the order of lists.

    Attributes:
        method: How lists are put into order.
        examination: [P] e, the probability of a look at each position by who is still there; the first is 1. Positions
            behind the last are like the last.
        leave: Probability that a click ends the visit of the list.
        scale: [2] mean and spread by which scores are standardised.
        weights: Weight of each of `FEATURES`.
        item: [items] what is known of an item beside its score, in log-odds; 0 where nothing is.
        value: [items] value of a click on each item.
        group: [items] number of the item's group (its first category); `NO_GROUP` for none.
        follows: [groups, groups] what a prior on orders says of a group (column) right below another (row); empty for
            no prior.
    """

    method: Method
    examination: Float64Array
    leave: float
    scale: Float64Array
    weights: Mapping[str, float]
    item: FloatArray
    value: FloatArray
    group: npt.NDArray[np.int32]
    follows: FloatArray

    def __post_init__(self) -> None:
        """Raises ValueError for values that do not fit the description above."""
        e, groups = self.examination, len(self.follows)
        require(self.method in METHODS, f"the method is {self.method!r}, not one of {', '.join(METHODS)}")
        require(1 <= len(e) <= POSITIONS_MAX, f"there are {len(e)} positions, not 1 to {POSITIONS_MAX}")
        require(bool(((e > 0) & (e <= 1)).all()), "a probability of a look is not within 0 and 1")
        require(0 <= self.leave <= 1, "the probability of leaving is not within 0 and 1")
        require(self.scale.shape == (2,) and bool(self.scale[1] > 0), "scale must be a mean and a positive spread")
        require(set(self.weights) == set(FEATURES), f"the weights are not those of {', '.join(FEATURES)}")
        require(len(self.item) == len(self.value) == len(self.group), "the columns of the items differ in length")
        require(self.follows.shape == (groups, groups) and groups <= GROUPS_MAX, "follows is not [groups, groups]")
        require(bool((self.group >= NO_GROUP).all()), "a group has a negative number")
        require(not groups or bool((self.group < groups).all()), "a group has no row in follows")
        numbers = (e, self.scale, list(self.weights.values()), self.item, self.value, self.follows)
        require(all(bool(np.isfinite(one).all()) for one in numbers), "a value is not finite")
        require(bool((self.value >= 0).all()), "a click has a negative value")

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.item)

    def save(self, path: Path) -> None:
        """Writes the file."""
        save_scorer(
            path, f"{KIND}_{self.method}", order_format=np.int64(FORMAT), examination=self.examination,
            leave=np.float64(self.leave), scale=self.scale,
            weights=np.array([self.weights[name] for name in FEATURES]), item=self.item, value=self.value,
            group=self.group, follows=self.follows,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Self:
        """Maps a file that `save` wrote.

        Raises:
            ScorerFileError: The file is anything else, or of another format.
        """
        method, arrays = _read(path)
        if int(arrays["order_format"]) != FORMAT:
            raise ScorerFileError(
                f"{path.name} is of format {int(arrays['order_format'])}, this version reads {FORMAT}; learn the order "
                "again: gpt4rec order learn"
            )
        try:
            return cls(
                method=method,
                examination=arrays["examination"],
                leave=float(arrays["leave"]),
                scale=arrays["scale"],
                weights=dict(zip(FEATURES, arrays["weights"].tolist(), strict=True)),
                item=arrays["item"],
                value=arrays["value"],
                group=arrays["group"],
                follows=arrays["follows"],
            )
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error


def _read(path: Path) -> tuple[Method, dict[str, Array]]:
    """The method and the arrays of a file; the kind says the method."""
    try:
        kind = str(map_arrays(path).get("kind"))
    except ArrayFileError as error:
        raise ScorerFileError(str(error)) from error
    method = kind.removeprefix(f"{KIND}_")
    if method not in METHODS:
        raise ScorerFileError(f"{path.name} holds {kind!r} and no order of a kind that this version reads")
    return method, load_scorer(path, kind, _ARRAYS)
