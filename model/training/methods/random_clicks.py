"""Random clicks in the training log: what noise costs.

A share of events is added at random places of random histories, each with an item drawn from the whole catalogue, the
type of the event before it and a time between its neighbours. Held-out events and the histories they are asked after
stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data.dataset import NO_SCENE, Sequences


def with_random_clicks(train: Sequences, share: float, seed: int) -> Sequences:
    """Returns the training part with random events among its own.

    Args:
        train: The training part.
        share: Events added, as a share of its events.
        seed: Seed of places and items.
    """
    rng = np.random.default_rng([seed, 0xC11C])
    n = round(share * train.n_events)
    if not n:
        return train
    after = np.sort(rng.integers(train.n_events, size=n))  # each comes after this event, within the same history
    user = np.searchsorted(train.offsets, after, side="right") - 1
    following = np.where(after + 1 < train.offsets[user + 1], after + 1, after)
    low, high = train.time_ms[after], train.time_ms[following]
    time = low + np.sort(rng.random(n)) * (high - low)
    whole = np.concatenate([np.arange(train.n_events), after])
    order = np.argsort(whole, kind="stable")
    added = np.concatenate([np.zeros(train.n_events, bool), np.ones(n, bool)])
    scene = None if train.scene is None else np.where(added, NO_SCENE, train.scene[whole])[order]
    item = np.where(added, rng.integers(train.n_items, size=len(whole)), train.item[whole])
    return replace(
        train,
        offsets=train.offsets + np.searchsorted(after, train.offsets, side="left"),
        item=item[order],
        type=train.type[whole][order],
        time_ms=np.concatenate([train.time_ms, time.astype(np.int64)])[order],
        scene=scene,
        session=None if train.session is None else train.session[whole][order],
    )
