"""Random histories, and what the network makes of them in one torch pass."""

from __future__ import annotations

import numpy as np
import torch

from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encoder_input
from service.artifact.features import EVENT_TYPES, EventArrays, Vocabulary

NOW_MS = 1_767_225_600_000
DAY_MS = 86_400_000


def random_history(rng: np.random.Generator, n: int, n_items: int, *, has_time: bool = True) -> EventArrays:
    """n events, about one in twenty of an unknown item; gaps from none at all to weeks, as in real logs."""
    item = np.where(rng.random(n) < 0.05, n_items, rng.integers(0, n_items, n))
    gap = np.round(rng.choice([0.0, 1.0, 1e3, 6e4, 36e5, 1.0 * DAY_MS, 14.0 * DAY_MS], n) * rng.uniform(0.5, 2.0, n))
    time_ms = NOW_MS + np.cumsum(gap).astype(np.int64) if has_time else np.zeros(n, np.int64)
    return EventArrays(item.astype(np.int64), rng.integers(0, len(EVENT_TYPES), n), time_ms)


@torch.no_grad()
def torch_states(model: GPT4Rec, events: EventArrays) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """[n, d] h after every event, in one pass over all of them."""
    item, kind, time_ms = (torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms))
    session = None if events.session is None else torch.from_numpy(events.session)[None]
    states: np.ndarray[tuple[int, int], np.dtype[np.float32]] = model(item, kind, time_ms, session=session)[0].numpy()
    return states


def full_encode(
    model: GPT4Rec, vocabulary: Vocabulary, events: EventArrays
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """[d] h after the whole history behind the start token, however long it is."""
    h: np.ndarray[tuple[int], np.dtype[np.float32]] = torch_states(model, vocabulary.with_start(events))[-1]
    return h


__all__ = ["DAY_MS", "NOW_MS", "encoder_input", "full_encode", "random_history", "torch_states"]
