"""What the loss sees of a batch, and what training methods may read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.data.dataset import Dataset, Sequences
from model.network.gpt4rec import GPT4Rec
from model.training.batches import Batch
from model.training.conditions import Conditions
from model.training.config import TrainConfig
from model.training.losses import Sample


@dataclass(frozen=True)
class OfStream:
    """The positions of a stream that has a loss of its own.

    Attributes:
        weight: Of the loss.
        q: [P_s, d] queries.
        target: [P_s] item indices.
    """

    weight: float
    q: Tensor
    target: Tensor


@dataclass(frozen=True)
class Positions:
    """The P positions of a batch that carry a loss.

    Attributes:
        batch: The batch, on the CPU.
        q: [P, d] queries.
        table: [N + 2, d] item table; with a `sample` [R + 2, d], the rows of the sample.
        target: [P] item indices.
        sample: Rows and negatives of the sampled softmax; None for the softmax over the catalogue.
        item: [B, T] input items, after dropout; `n_items` is the unknown item.
        type: [B, T] event types.
        time_ms: [B, T] times.
        at: [B, T] bool, where the P positions are.
        context: [P, slots] context rows that each position knows.
        gap_ms: [P] gaps that each position knows.
        by_stream: What each stream with a loss of its own predicts.
    """

    batch: Batch
    q: Tensor
    table: Tensor
    target: Tensor
    sample: Sample | None
    item: Tensor
    type: Tensor
    time_ms: Tensor
    at: Tensor
    context: Tensor
    gap_ms: Tensor
    by_stream: tuple[OfStream, ...] = ()


@dataclass(frozen=True)
class Moment:
    """When in a training a batch is trained.

    Attributes:
        epoch: Number of the epoch, from 0.
        share: Share of the training that is over, 0 … 1.
    """

    epoch: int = 0
    share: float = 0.0


@dataclass(frozen=True)
class Setup:
    """What a training method may read of a run.

    Attributes:
        model: The network that is trained.
        config: The training configuration.
        conditions: Context rows of users and items.
        dataset: The data set.
        train: The training part.
        log_q: [N] log-probabilities of the default proposal; −∞ for items that are no candidates.
    """

    model: GPT4Rec
    config: TrainConfig
    conditions: Conditions
    dataset: Dataset
    train: Sequences
    log_q: Tensor
