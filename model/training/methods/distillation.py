"""Distillation (Hinton et al., 2015): a network learns the softmax over items of a larger one beside the targets.

    τ² KL(softmax(teacher / τ) ‖ softmax(student / τ))

The teacher is a finished run of the same data. It reads the same inputs, context and gap; with negatives, both are
compared over the negatives and the targets of the batch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.errors import RunError
from model.network.gpt4rec import GPT4Rec
from model.training.methods.base import Term
from model.training.positions import Positions, Setup
from model.training.run_folder import Run


class Distillation(Term):
    """What the teacher says of each position."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.teacher = _teacher(Path(self.settings.teacher), setup).to(setup.log_q.device)

    def __call__(self, at: Positions) -> Tensor:
        """Returns τ² KL, the mean over the positions."""
        temperature = self.settings.distil_temperature
        rows = None if at.sample is None else at.sample.rows
        with torch.no_grad():
            table = self.teacher.item_table(rows)
            item = at.item if at.sample is None else at.sample.place[at.item]
            h = self.teacher(item, at.type, at.time_ms, table, rows=rows)[at.at]
            wanted = _logits(self.teacher.query(h, at.context, at.gap_ms), table)
        candidates = torch.isfinite(self.setup.log_q if rows is None else self.setup.log_q[rows])
        return divergence(_logits(at.q, at.table)[:, candidates], wanted[:, candidates], temperature)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns τ² KL(teacher ‖ student), the mean over the rows of logits [P, N]."""
    learned = F.log_softmax(student.float() / temperature, dim=-1)
    wanted = F.log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(learned, wanted, reduction="batchmean", log_target=True)


def _logits(q: Tensor, table: Tensor) -> Tensor:
    return q @ table[:-2].T


def _teacher(folder: Path, setup: Setup) -> GPT4Rec:
    """Opens the teacher.

    Raises:
        RunError: It is of other data, or its encoder reads what this one does not.
    """
    run = Run.open(folder)
    if run.data["fingerprint"] != setup.dataset.fingerprint:
        raise RunError(
            "the teacher was trained on other data (fingerprints differ)",
            where=str(folder),
            fix="train the teacher on this data set, or leave methods.teacher out",
        )
    model = run.model().requires_grad_(False)
    c = model.config
    if model.encoder.task == "masked" or model.encoder.reads_context or c.query_buckets or c.session_ids:
        raise RunError(
            f"a network with the encoder {run.config.encoder} cannot teach: it does not read the same inputs",
            where=str(folder),
            fix="train the teacher with encoder gpt4rec, sasrec, gru4rec, lstm_attention or encoder_decoder",
        )
    return model
