"""The interface of a method that adds a term to the loss, and what several methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network.gpt4rec import GPT4Rec
from model.training.batches import Batch
from model.training.losses import FULL_SOFTMAX_ITEMS, Sample
from model.training.positions import Positions, Setup


class Term(ABC):
    """A term of the loss. It draws from torch's global generator, so that epochs are repeatable."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.model = setup.model
        self.settings = setup.config.method_settings()

    @abstractmethod
    def __call__(self, at: Positions) -> Tensor:
        """Returns the term, without its weight.

        Args:
            at: The positions of a batch that carry a loss, on the device of the network.
        """


@dataclass(frozen=True)
class ItemRows:
    """An item table and where items are in it.

    Attributes:
        table: [R + 2, d] rows; the last two are the unknown item and the start token.
        item: The items that were asked for, as rows of the table.
        rows: [R] the items that the table has; None: all.
    """

    table: Tensor
    item: Tensor
    rows: Tensor | None = None


def rows_for(model: GPT4Rec, item: Tensor) -> ItemRows:
    """Returns the item table for some items (any shape): whole, or of a large catalogue the rows that are needed."""
    n = model.config.n_items
    if n <= FULL_SOFTMAX_ITEMS:
        return ItemRows(model.item_table(), item)
    none = torch.zeros(0, dtype=torch.int64, device=item.device)
    sample = Sample.of(item, none, none, n)
    return ItemRows(model.item_table(sample.rows), sample.place[item], sample.rows)


def encode_rows(model: GPT4Rec, batch: Batch, length: Tensor, device: torch.device) -> Tensor:
    """Returns the hidden state [B, d] after the first `length` [B] inputs of each row of a batch."""
    rows = rows_for(model, batch.item.to(device))
    return model.encode(
        rows.item, batch.type.to(device), batch.time_ms.to(device), length.to(device), rows.table, rows=rows.rows
    )  # fmt: skip
