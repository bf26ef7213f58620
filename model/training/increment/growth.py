"""Context vocabulary, network and memory of a run, grown to new items and values. What they had stays where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from model.network.config import NetworkConfig
from model.network.gpt4rec import GPT4Rec
from service.artifact.features import ContextVocabulary


def grown_context(old: ContextVocabulary, fitted: ContextVocabulary) -> tuple[ContextVocabulary, list[str]]:
    """Returns the vocabulary of a run with the new values of a log behind its own, and notes on what it cannot take.

    Args:
        old: The vocabulary of the run. Its slots and its largest gap stay: the network was made for them.
        fitted: What a new training would have fitted.
    """
    values = {slot: dict(rows) for slot, rows in old.values.items()}
    row = old.n_rows
    for slot, rows in fitted.values.items():
        for value in rows if slot in values else ():
            if value not in values[slot]:
                values[slot][value] = row
                row += 1
    ignored = [name for name in fitted.slots if name not in old.slots]
    gone = [name for name in old.fields if name not in fitted.fields]
    notes = [f"{name} is new: only a training without --init can learn it" for name in ignored]
    notes += [f"the data has no {name}, which the run knows; it counts as unknown" for name in gone]
    return replace(old, values=values), notes


def grown_shape(old: NetworkConfig, n_items: int, context: ContextVocabulary) -> NetworkConfig:
    """Returns the shape of the network with more items and context rows."""
    return replace(old, n_items=n_items, n_context_rows=context.n_rows)


def grown_network(
    old: GPT4Rec, shape: NetworkConfig, codes: Tensor, before: ContextVocabulary, context: ContextVocabulary
) -> GPT4Rec:
    """Returns the network with new rows, which start at random, and new context rows, which start at their slot's mean.

    Args:
        old: The network of the run.
        shape: The shape of the new one.
        codes: [N, levels] token paths of all items.
        before: The context vocabulary of the run.
        context: The grown one.
    """
    model = GPT4Rec(shape, codes).eval()
    own, given = model.state_dict(), old.state_dict()
    for name, value in own.items():
        if name != "codes":
            value.copy_(_grown(name, given[name], value))
    for slot, rows in context.values.items():
        known = list(before.values.get(slot, {}).values())
        new = [row for row in rows.values() if row >= before.n_rows]
        if known and new:
            own["context.table.weight"][new] = own["context.table.weight"][known].mean(dim=0)
    return model


def grown_fisher(old: Mapping[str, Tensor], model: GPT4Rec) -> dict[str, Tensor]:
    """Returns the Fisher information of a run for the grown network; new rows have none."""
    return {name: _grown(name, old[name], torch.zeros(p.shape)) for name, p in model.named_parameters() if name in old}


def is_old(name: str, old: Tensor, value: Tensor) -> Tensor:
    """Returns a mask like `value`: 1 where it has a place in the old tensor, 0 in new rows."""
    return _grown(name, torch.ones_like(old), torch.zeros_like(value))


def _grown(name: str, old: Tensor, new: Tensor) -> Tensor:
    """Returns `new` with the old values in their places. The rows of unknown item and start token stay the last two."""
    if old.shape == new.shape:
        return old
    out = new.clone()
    if name == "item.weight":
        out[: len(old) - 2], out[-2:] = old[:-2], old[-2:]
    else:
        out[: len(old)] = old
    return out
