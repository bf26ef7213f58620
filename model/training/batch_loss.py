"""From a batch to its loss: what the network sees of each position, and what it is trained to predict."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network.behaviour_streams import STREAMS, stream_of_types
from model.network.encoders.behaviours import Behaviours
from model.network.gpt4rec import GPT4Rec
from model.training.batches import Batch
from model.training.conditions import Conditions, draw_loss_mask, type_shares
from model.training.config import TrainConfig
from model.training.losses import LossWeights, Sample, joint_loss
from model.training.masking import mask_events
from model.training.methods.adversarial import generator_state, repeated_draws, worst_change
from model.training.methods.augmentation import augmented
from model.training.methods.negatives import SOURCES, Negatives, Proposals, number_of_negatives
from model.training.methods.pretraining import Pretraining
from model.training.methods.registry import terms_of
from model.training.methods.scheduled_sampling import sampled_path_logits
from model.training.positions import Moment, OfStream, Positions, Setup
from service.artifact.features import GAP_UNKNOWN

BEGINNING = Moment()


@dataclass(frozen=True)
class Drawn:
    """A batch with what chance decided about it, on the CPU.

    Attributes:
        batch: The batch; with masked events, where the encoder's task is to find them.
        item: [B, T] input items, after dropout.
        at: [B, T] bool, the P positions that carry a loss.
        context: [P, slots] context rows that each position knows.
        gap: [P] gaps that each position knows.
        features: [B, slots] context rows of the users; None for encoders that do not read them.
        negatives: Those of the sampled softmax, on the device of the network; None for the softmax over the catalogue.
    """

    batch: Batch
    item: Tensor
    at: Tensor
    context: Tensor
    gap: Tensor
    features: Tensor | None
    negatives: Negatives | None


class BatchLoss:
    """Computes the joint loss of a batch, and what training methods make of it.

    Every random choice draws from torch's global generator, in the order of the lines below: reordering them changes
    what a seed gives.
    """

    def __init__(
        self, model: GPT4Rec, conditions: Conditions, config: TrainConfig, log_q: Tensor, setup: Setup | None = None
    ) -> None:
        """Prepares the loss.

        Args:
            model: The network.
            conditions: Context rows of users, scenes and items.
            config: The training configuration.
            log_q: [N] log-probabilities of the default proposal.
            setup: What training methods may read; None leaves out those that add to the loss.

        Raises:
            RunError: A method needs what the run does not have.
        """
        self.model = model
        self.conditions = conditions
        self.config = config
        self.methods = config.method_settings()
        self.log_q = log_q
        self.n_items = model.config.n_items
        self.type_shares = type_shares(config.type_weights)
        self.stream_of = torch.tensor(stream_of_types(model.config.n_types))
        self.weights = LossWeights(
            config.codes_weight,
            config.dense_weight,
            number_of_negatives(config.negatives, self.methods.negatives, self.n_items),
            config.label_smoothing,
        )
        self._proposals = Proposals.of(log_q)
        self._terms = [] if setup is None else terms_of(setup)
        pretrains = setup is not None and self.methods.pretrain_epochs > 0
        self._pretraining = Pretraining(setup, self.weights) if setup is not None and pretrains else None

    def __call__(self, batch: Batch, moment: Moment = BEGINNING) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weighted loss and its two parts: (loss, dense part, codes part)."""
        with self._autocast():
            if self._pretraining is not None and moment.epoch < self.methods.pretrain_epochs:
                return self._pretraining(batch)
            batch = augmented(batch, self.methods.augment, self.n_items)
            return self._adversarial(batch, moment) if self.methods.adversarial else self._joint(batch, moment)[0]

    def _joint(
        self, batch: Batch, moment: Moment, change: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Positions]:
        at = self.positions(batch, change)
        share = self.methods.scheduled_sampling * moment.share
        paths = functools.partial(sampled_path_logits, share=share)
        loss, dense, codes = joint_loss(
            self.model, at.q, at.table, at.target, self.weights, self.log_q, at.sample, paths
        )
        for one in at.by_stream:
            own, _, _ = joint_loss(self.model, one.q, at.table, one.target, self.weights, self.log_q, at.sample, paths)
            loss = loss + one.weight * own
        for weight, term in self._terms:
            loss = loss + weight * term(at)
        return (loss, dense, codes), at

    def _adversarial(self, batch: Batch, moment: Moment) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the joint loss with the weighted loss under the worst change of the item vectors added."""
        state = generator_state()
        (loss, dense, codes), at = self._joint(batch, moment)
        change = worst_change(loss, at.table, self.methods.adversarial_size)
        with repeated_draws(state):
            (worse, _, _), _ = self._joint(batch, moment, change)
        return loss + self.methods.adversarial * worse, dense, codes

    def _autocast(self) -> torch.autocast:
        kind, precision = self.log_q.device.type, self.methods.precision
        lower = precision == "bfloat16" or (precision == "auto" and kind == "cuda")
        return torch.autocast(kind, torch.bfloat16, enabled=lower)

    def positions(self, batch: Batch, change: Tensor | None = None) -> Positions:
        """Returns the positions of a batch that carry a loss, as the network sees them.

        Args:
            batch: The batch, on the CPU.
            change: [R + 2, d], added to the item table; None changes nothing.
        """
        return self.seen(self.drawn(batch), change)

    def drawn(self, batch: Batch) -> Drawn:
        """Draws everything about a batch that the network does not draw itself."""
        config, model = self.config, self.model
        if model.encoder.task == "masked":
            batch = mask_events(batch)
        item = self._with_dropout(batch.item)
        has_loss = (batch.target >= 0) & draw_loss_mask(batch.target_type, self.type_shares)
        target = batch.target[has_loss]
        user = batch.user[:, None].expand_as(item)[has_loss]
        context, gap = self.conditions.sample(config, user, target, batch.gap_ms[has_loss], batch.scene[has_loss])
        features = None  # of the users, for encoders that read them
        if model.encoder.reads_context:
            features = self.conditions.sample_features(config, batch.user)
        negatives = None
        if self.weights.negatives:
            on_device = target.to(self.log_q.device)
            negatives = SOURCES[self.methods.negatives](self._proposals, self.weights.negatives, on_device)
        return Drawn(batch, item, has_loss, context, gap, features, negatives)

    def seen(self, drawn: Drawn, change: Tensor | None = None) -> Positions:
        """Returns the positions of a batch, as the network sees them; `change` is that of `positions`."""
        batch, model, device = drawn.batch, self.model, self.log_q.device
        item, target = drawn.item.to(device), batch.target[drawn.at].to(device)
        wanted = self._stream_targets(batch)
        needed = torch.cat([target, *(of_stream.to(device) for _, _, of_stream in wanted)])
        table, rows, known, sample = self.table(drawn, item, needed)
        table = table if change is None else table + change
        masking = {name: value.to(device) for name, value in batch.masking.items()}
        type_, time_ms, at = (values.to(device) for values in (batch.type, batch.time_ms, drawn.at))
        query = None if batch.query is None else batch.query.to(device)
        session = batch.session.to(device) if model.config.session_ids and batch.session is not None else None
        features = None if drawn.features is None else drawn.features.to(device)
        by_stream: tuple[OfStream, ...] = ()
        with self.along_rows(drawn):
            if isinstance(model.encoder, Behaviours) and wanted:
                states = model.stream_states(rows, type_, time_ms, table, query)
                h = model.encoder.fused(states)
                by_stream = tuple(self._of_stream(states, *one) for one in wanted)
            else:
                h = model(
                    rows, type_, time_ms, table, context=features, query=query, session=session, rows=known, **masking
                )  # fmt: skip
        context, gap = drawn.context.to(device), drawn.gap.to(device)
        q = model.query(h[at], context, gap)
        return Positions(batch, q, table, target, sample, item, type_, time_ms, at, context, gap, by_stream)

    def table(self, drawn: Drawn, item: Tensor, needed: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Sample | None]:
        """Returns the item table of a batch, `item` as rows of it, the items that it has, and the sample they are of.

        Args:
            drawn: The batch.
            item: [B, T] input items.
            needed: [P] targets, which the table must have.
        """
        if drawn.negatives is None:
            return self.model.item_table(), item, None, None
        sample = Sample.of(item, needed, drawn.negatives.item, self.n_items, drawn.negatives.log_q)
        return self.model.item_table(sample.rows), sample.place[item], sample.rows, sample

    def along_rows(self, drawn: Drawn) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 - of the interface
        """Within it the network computes the rows of a batch; a training on several processes draws by them."""
        return contextlib.nullcontext()

    def _stream_targets(self, batch: Batch) -> list[tuple[int, Tensor, Tensor]]:
        """Returns number, positions [B, T] bool and targets [P] of each stream that has a loss of its own.

        The positions are the events of the stream, whose state changed there; the target of each is the next item of
        the stream, and of a search the next item of any.
        """
        found = []
        for s, name in enumerate(STREAMS):
            if not self.config.behaviour_losses.get(name, 0):
                continue
            wanted = batch.target >= 0
            if name != "search":
                wanted &= self.stream_of[batch.target_type] == s
            place = torch.where(wanted, torch.arange(wanted.shape[1]), wanted.shape[1])
            following = place.flip(1).cummin(1).values.flip(1)
            at = (self.stream_of[batch.type] == s) & (following < wanted.shape[1])
            if at.any():
                found.append((s, at, batch.target.gather(1, following.clamp(max=wanted.shape[1] - 1))[at]))
        return found

    def _of_stream(self, states: Tensor, s: int, at: Tensor, target: Tensor) -> OfStream:
        """Returns what the loss sees of a stream; nothing is known of its requests."""
        h = states[:, :, s][at.to(states.device)]
        unknown = torch.zeros(len(h), self.model.config.n_slots, dtype=torch.int64, device=h.device)
        q = self.model.query(h, unknown, torch.full((len(h),), GAP_UNKNOWN, device=h.device))
        return OfStream(self.config.behaviour_losses[STREAMS[s]], q, target.to(h.device))

    def _with_dropout(self, item: Tensor) -> Tensor:
        """Replaces a share of the input items by the unknown item; start tokens stay."""
        if self.config.item_dropout <= 0:
            return item
        dropped = (torch.rand(item.shape) < self.config.item_dropout) & (item < self.n_items)
        return torch.where(dropped, self.n_items, item)
