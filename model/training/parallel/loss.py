"""The loss of the rows that a process has of a batch, such that the sum over processes is the loss of the batch.

Every process draws what chance decides about the whole batch, from the same seed, and cuts its rows out of it:
negatives are shared, and nothing depends on how many processes there are.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace

import torch
from torch import Tensor

from model.network.gpt4rec import GPT4Rec
from model.training.batch_loss import BEGINNING, BatchLoss, Drawn
from model.training.batches import Batch
from model.training.conditions import Conditions
from model.training.config import TrainConfig
from model.training.losses import Sample, Softmax, joint_loss
from model.training.methods.augmentation import augmented
from model.training.parallel.processes import Processes
from model.training.parallel.row_draws import RowDraws, step_key
from model.training.positions import Moment


class ParallelLoss(BatchLoss):
    """Computes this process's share of the loss of a batch."""

    def __init__(
        self, model: GPT4Rec, conditions: Conditions, config: TrainConfig, log_q: Tensor, processes: Processes
    ) -> None:
        """Prepares the loss; the arguments are those of `BatchLoss`."""
        super().__init__(model, conditions, config, log_q)
        self.processes = processes
        self.step = 0
        self._draws = RowDraws(0)
        self._first_row = 0
        self._whole: Drawn | None = None

    def __call__(self, batch: Batch, moment: Moment = BEGINNING) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """Returns this process's share of the loss and of its two parts, for the step `step`."""
        key = step_key(self.config.seed, self.step)
        torch.manual_seed(key)
        self._draws = RowDraws(key)
        with self._autocast():
            whole = self._whole = self.drawn(augmented(batch, self.methods.augment, self.n_items))
            own = self._own(whole)
            at = self.seen(own)
            row, place = own.at.nonzero(as_tuple=True)
            position = (row + self._first_row) * own.at.shape[1] + place
            of = max(1, int(whole.at.sum()))
            with self._draws.along(position.to(at.q.device)):
                return joint_loss(
                    self.model, at.q, at.table, at.target, self.weights, self.log_q, at.sample, of=of,
                    softmax=self.softmax(),
                )  # fmt: skip

    def softmax(self) -> Softmax | None:
        """Returns what computes the softmax over items; None where the table is whole."""
        return None

    def along_rows(self, drawn: Drawn) -> contextlib.AbstractContextManager[None]:
        """Within it the network draws by the rows of the whole batch."""
        rows = torch.arange(len(drawn.item), device=self.log_q.device) + self._first_row
        return self._draws.along(rows)

    def table(self, drawn: Drawn, item: Tensor, needed: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Sample | None]:
        """Returns the item table of a batch; what is drawn of items follows the items."""
        if self.model.of_content is None:
            return super().table(drawn, item, needed)
        sample = None
        items = torch.arange(self.n_items, device=item.device)
        if drawn.negatives is not None:
            sample = Sample.of(item, needed, drawn.negatives.item, self.n_items, drawn.negatives.log_q)
            items = sample.rows
        with self._draws.along(items):
            table = self.model.item_table(None if sample is None else sample.rows)
        if sample is None:
            return table, item, None, None
        return table, sample.place[item], sample.rows, sample

    def _own(self, whole: Drawn) -> Drawn:
        """Returns the rows that this process has; where there are none for it, one that carries no loss."""
        low, high = self.processes.rows(len(whole.item))
        if low < high:
            self._first_row = low
            return rows_of(whole, low, high)
        self._first_row = 0
        row = rows_of(whole, 0, 1)
        return replace(row, at=torch.zeros_like(row.at), context=row.context[:0], gap=row.gap[:0])


def rows_of(whole: Drawn, low: int, high: int) -> Drawn:
    """Returns the rows `low` to `high` of a batch; the padding stays that of the whole batch."""
    first, end = int(whole.at[:low].sum()), int(whole.at[:high].sum())
    values = {field.name: getattr(whole.batch, field.name) for field in fields(Batch)}
    batch = replace(whole.batch, **{name: v[low:high] for name, v in values.items() if v is not None})
    return Drawn(
        batch,
        whole.item[low:high],
        whole.at[low:high],
        whole.context[first:end],
        whole.gap[first:end],
        None if whole.features is None else whole.features[low:high],
        whole.negatives,
    )
