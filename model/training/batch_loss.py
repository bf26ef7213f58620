"""From a batch to its loss: what the network sees of each position, and what it is trained to predict."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.network.gpt4rec import GPT4Rec
from model.training.batches import Batch
from model.training.conditions import Conditions, draw_loss_mask, type_shares
from model.training.config import TrainConfig
from model.training.losses import LossWeights, Sample, choose_negatives, draw_negatives, joint_loss
from model.training.masking import mask_events


@dataclass(frozen=True)
class Positions:
    """The P positions of a batch that carry a loss.

    Attributes:
        q: [P, d] queries.
        table: [N + 2, d] item table; with a `sample` [R + 2, d], the rows of the sample.
        target: [P] item indices.
        sample: Rows and negatives of the sampled softmax; None for the softmax over the catalogue.
    """

    q: Tensor
    table: Tensor
    target: Tensor
    sample: Sample | None


class BatchLoss:
    """Computes the joint loss of a batch.

    Every random choice draws from torch's global generator, in the order of the lines below: reordering them changes
    what a seed gives.
    """

    def __init__(self, model: GPT4Rec, conditions: Conditions, config: TrainConfig, log_q: Tensor) -> None:
        self.model = model
        self.conditions = conditions
        self.config = config
        self.log_q = log_q
        self.n_items = model.config.n_items
        self.type_shares = type_shares(config.type_weights)
        self.weights = LossWeights(
            config.codes_weight,
            config.dense_weight,
            choose_negatives(config.negatives, self.n_items),
            config.label_smoothing,
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weighted loss and its two parts: (loss, dense part, codes part)."""
        with self._autocast():
            at = self.positions(batch)
            return joint_loss(self.model, at.q, at.table, at.target, self.weights, self.log_q, at.sample)

    def _autocast(self) -> torch.autocast:
        kind = self.log_q.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")

    def positions(self, batch: Batch) -> Positions:
        """Returns the positions of a batch that carry a loss, as the network sees them."""
        config, model, device = self.config, self.model, self.log_q.device
        if model.encoder.task == "masked":
            batch = mask_events(batch)
        item = self._with_dropout(batch.item)
        has_loss = (batch.target >= 0) & draw_loss_mask(batch.target_type, self.type_shares)
        target = batch.target[has_loss]
        user = batch.user[:, None].expand_as(item)[has_loss]
        context, gap = self.conditions.sample(config, user, target, batch.gap_ms[has_loss], batch.scene[has_loss])
        features = None  # of the users, for encoders that read them
        if model.encoder.reads_context:
            features = self.conditions.sample_features(config, batch.user).to(device)
        item, target = item.to(device), target.to(device)
        sample = None
        if self.weights.negatives:
            negatives = draw_negatives(self.log_q, self.weights.negatives)
            sample = Sample.of(item, target, negatives, self.n_items)
            item = sample.place[item]
        table = model.item_table(None if sample is None else sample.rows)
        masking = {name: value.to(device) for name, value in batch.masking.items()}
        h = model(item, batch.type.to(device), batch.time_ms.to(device), table, context=features, **masking)
        return Positions(model.query(h[has_loss.to(device)], context.to(device), gap.to(device)), table, target, sample)

    def _with_dropout(self, item: Tensor) -> Tensor:
        """Replaces a share of the input items by the unknown item; start tokens stay."""
        if self.config.item_dropout <= 0:
            return item
        dropped = (torch.rand(item.shape) < self.config.item_dropout) & (item < self.n_items)
        return torch.where(dropped, self.n_items, item)
