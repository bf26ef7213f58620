"""NDCG@10 on the validation part where the item table is in parts: each process ranks among its own items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.data.query_histories import history_events
from model.data.split import Split
from model.network.encoders.registry import reads
from model.network.gpt4rec import GPT4Rec
from model.network.item_rows import ItemParts, summed_over_processes
from model.network.scoring import encode_histories, encoder_input
from model.training.parallel.processes import Processes, lost_process
from model.training.validation import SCORES_AT_ONCE, gains_of_ranks, questions_asked
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.features import GAP_UNKNOWN, EventArrays, Vocabulary


@torch.no_grad()
def gains_over_parts(
    model: GPT4Rec,
    split: Split,
    vocabulary: Vocabulary,
    limit: int,
    processes: Processes,
    *,
    exclude_history: bool = True,
) -> Float64Array:
    """Returns what `validation_gains` returns, in every process.

    Args:
        model: The network, with this process's part of the item table.
        split: Its validation part is measured.
        vocabulary: The event types that the model knows.
        limit: Largest number of users; above it a fixed random sample is taken.
        processes: All of them.
        exclude_history: Whether items of a user's history are left out of the ranking.
    """
    rows = questions_asked(split, limit)
    item = model.item
    assert isinstance(item, ItemParts)  # noqa: S101 - the network of a training with `shard_items`
    at_once = max(1, min(1024, SCORES_AT_ONCE // max(1, item.high - item.low)))
    own = torch.arange(item.low, min(item.high, item.n_items), device=processes.device)
    table = model.described(item.own[: len(own)], own)
    with lost_process():
        gains = [
            _gains(model, item, table, split, rows[start : start + at_once], vocabulary, exclude_history)
            for start in range(0, len(rows), at_once)
        ]
    return np.concatenate(gains) if gains else np.zeros(0)


def _gains(
    model: GPT4Rec,
    item: ItemParts,
    table: Tensor,
    split: Split,
    rows: IntArray,
    vocabulary: Vocabulary,
    exclude_history: bool,
) -> Float64Array:
    log, asked, device = split.sequences, split.valid, table.device
    ends = [(int(asked.users[row]), int(asked.history_end[row])) for row in rows]
    histories = [history_events(log, user, end, vocabulary) for user, end in ends]
    q = _queries(model, item, [encoder_input(events, reads(model.config), vocabulary) for events in histories], device)
    score = q @ table.T
    low, high = item.low, item.low + len(table)
    for row, (user, end) in enumerate(ends if exclude_history else []):
        seen = log.item[log.offsets[user] : end]
        seen = seen[(seen >= low) & (seen < high)] - low
        score[row, torch.from_numpy(seen).to(device)] = -torch.inf
    targets = torch.from_numpy(asked.target[rows]).to(device)
    mine = (targets >= low) & (targets < high)
    of_target = torch.zeros(len(rows), device=device)
    of_target[mine] = score[mine, targets[mine] - low]
    listed = ~mine | torch.isfinite(of_target)
    of_target = summed_over_processes(torch.where(listed, of_target, 0.0))
    listed = summed_over_processes((~listed).float()) == 0
    ahead = summed_over_processes((~(score < of_target[:, None])).sum(dim=1)) - 1
    return gains_of_ranks(ahead.cpu().numpy(), listed.cpu().numpy())


def _queries(model: GPT4Rec, item: ItemParts, inputs: list[EventArrays], device: torch.device) -> Tensor:
    """Returns the queries [Q, d] after each history, of requests of which nothing is known."""
    n = item.n_items
    used = np.unique(np.concatenate([events.item for events in inputs]))
    rows = np.concatenate([used[used < n], [n, n + 1]])
    table = model.item_table(torch.from_numpy(rows[:-2]).to(device))
    placed = [replace(events, item=np.searchsorted(rows, events.item)) for events in inputs]
    context = torch.zeros(len(inputs), model.config.n_slots, dtype=torch.int64, device=device)
    h = encode_histories(model, placed, table, context, torch.from_numpy(rows[:-2]).to(device))
    return model.query(h, context, torch.full((len(inputs),), GAP_UNKNOWN, device=device))
