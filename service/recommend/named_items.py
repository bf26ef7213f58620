"""Items that a request names to be ranked: which of them may be listed. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from service.common.answer_warnings import Warnings
from service.engine.fallback import Constraints
from service.lifecycle.served_model import ServedModel


@dataclass(frozen=True, slots=True)
class NamedItems:
    """Items to rank.

    Attributes:
        items: [m] catalogue indices of those that may be listed, unique and ascending.
        limits: What a list of nothing else may hold.
        warnings: Which of the named items are left out, and why.
    """

    items: npt.NDArray[np.int64]
    limits: Constraints
    warnings: tuple[str, ...]


def named_items(item_ids: Sequence[str], model: ServedModel, limits: Constraints) -> NamedItems:
    """Returns what is ranked of the items that a request names.

    Args:
        item_ids: Their ids; one that is there twice is ranked once.
        model: The model that answers.
        limits: What the list may hold by its filter, exclusions and history.
    """
    warnings = Warnings()
    warnings.unless_empty(
        "no item of the catalogue has these ids of candidates", (one for one in item_ids if not model.known(one))
    )
    items = np.unique(model.indices(item_ids))
    kept = ~np.isin(items, limits.excluded)
    if limits.allowed is not None:
        kept &= limits.allowed[items]
    ids = model.catalogue.item_ids
    warnings.unless_empty(
        "these candidates may not be listed: they are excluded, seen, out of stock, or not in the filter",
        (ids[item] for item in items[~kept].tolist()),
    )
    items = items[kept]
    allowed = np.zeros(len(ids), np.bool_)
    allowed[items] = True
    return NamedItems(items, replace(limits, allowed=allowed), tuple(warnings.texts))
