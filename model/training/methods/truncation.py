"""Truncation of the training histories: the newest events, or those that matter.

Importance sampling keeps k of a user's events. The newest quarter of k stays; of the others each is drawn, without
replacement, with a weight

    w = 2^(−age / k) · log(1 + users / users with the item) · type        age: events after it; purchases count twice

by the largest keys u^(1/w) (Efraimidis and Spirakis, 2006). The order stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.data.dataset import Sequences
from service.artifact.array_types import Float64Array
from service.artifact.features import type_index

NEWEST = 0.25  # share of the kept events that are the newest
PURCHASE = 2.0  # weight of a purchase


def truncated(train: Sequences, keep: int, how: Literal["newest", "important"], seed: int) -> Sequences:
    """Returns the training part with at most `keep` events of each user; 0 keeps all."""
    if not keep or not len(train.lengths) or int(train.lengths.max()) <= keep:
        return train
    rng = np.random.default_rng([seed, 0x7E])
    key = _key(train, keep, rng) if how == "important" else -age(train).astype(np.float64)
    kept = np.ones(train.n_events, bool)
    for user in np.flatnonzero(train.lengths > keep):
        rows = train.user(int(user))
        kept[rows] = False
        kept[rows.start + np.argpartition(-key[rows], keep - 1)[:keep]] = True
    return only(train, kept)


def age(train: Sequences) -> npt.NDArray[np.int64]:
    """Returns how many events of the same user come after each event [events]."""
    return np.asarray(np.repeat(train.offsets[1:], train.lengths) - 1 - np.arange(train.n_events), np.int64)


def importance(train: Sequences, keep: int) -> Float64Array:
    """Returns the weight w of each event [events]."""
    user = np.repeat(np.arange(train.n_users), train.lengths)
    pairs = np.unique(user * train.n_items + train.item)
    with_item = np.bincount(pairs % train.n_items, minlength=train.n_items)
    rare = np.log1p(train.n_users / with_item[train.item].clip(min=1))
    kind = np.where(train.type == type_index("purchase"), PURCHASE, 1.0)
    return np.asarray(2.0 ** (-age(train) / keep) * rare * kind, np.float64)


def only(train: Sequences, kept: npt.NDArray[np.bool_]) -> Sequences:
    """Returns the sequences with some of their events."""
    before = np.concatenate([[0], np.cumsum(kept)])
    scene = None if train.scene is None else train.scene[kept]
    session = None if train.session is None else train.session[kept]
    return replace(
        train, offsets=before[train.offsets], item=train.item[kept], type=train.type[kept],
        time_ms=train.time_ms[kept], scene=scene, session=session,
    )  # fmt: skip


def _key(train: Sequences, keep: int, rng: np.random.Generator) -> Float64Array:
    newest = age(train) < max(1, int(NEWEST * keep))
    # log(u) / w orders as u^(1/w) does, and does not underflow.
    key = np.log(rng.random(train.n_events).clip(min=1e-300)) / importance(train, keep).clip(min=1e-12)
    return np.where(newest, np.inf, key)
