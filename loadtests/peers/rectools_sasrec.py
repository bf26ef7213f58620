"""RecTools' SASRec with a sampled softmax, with the settings of its authors' benchmark, run in its own environment.

    python -m loadtests.peers.rectools_sasrec JOB.npz OUT --factors 64 --seed 0 --minutes 60
    python -m loadtests.peers.rectools_sasrec JOB.npz OUT --factors 256 --every 1 --choose recall@10 --minutes 600

Settings (github.com/blondered/transformer_benchmark): one block, one head, dropout .2, 256 negatives a position, length
50, learning rate 1e-3, batches of 128 users, up to 200 epochs, stopped after 50 without a better validation. The
benchmark chooses the epoch by recall@10 after each one (`src/models/transformers/trainer.py`), as the second command
does; the first looks at NDCG@10 after every fourth, which takes less time.

A change to RecTools: logits are computed only for positions that have a target (padded ones carry no loss, so the loss
is the same, in an eighth of the time).

JOB.npz   offsets [U + 1], item [E]: the visible events of each user before the test question, oldest first;
          asked [V]: users whose last of these events is their validation question, excluded from training
OUT.json  the figures of every validated epoch, and what ended the training; OUT.npz lists [U, 20] of the best one,
          items of the history removed, padded with −1
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from pytorch_lightning import Callback, Trainer, seed_everything  # type: ignore[import-not-found]
from rectools import Columns  # type: ignore[import-not-found]
from rectools.dataset import Dataset  # type: ignore[import-not-found]
from rectools.models import SASRecModel  # type: ignore[import-not-found]
from rectools.models.nn.transformers.lightning import TransformerLightningModule  # type: ignore[import-not-found]

LENGTH, DEPTH, EVERY = 50, 20, 4


class TargetsOnly(TransformerLightningModule):  # type: ignore[misc]
    """Logits of the positions with a target: [P, 1 + negatives], the target's first."""

    def get_batch_logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the logits of the positions with a target."""
        wanted = batch["y"] != 0
        table = self.torch_model.item_model.get_all_embeddings()
        h = self.torch_model.encode_sessions(batch, table)[wanted]
        candidates = torch.cat([batch["y"][wanted][:, None], batch["negatives"][wanted]], dim=1)
        embedded = torch.nn.functional.embedding(candidates, table)
        return torch.bmm(embedded, h[:, :, None])[:, :, 0]

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        """Returns the loss of a batch."""
        logits = self.get_batch_logits(batch)
        return torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Does nothing: the callback validates."""


class Keeper(Callback):  # type: ignore[misc]
    """Validates, keeps the lists of the best epoch, and ends the training."""

    def __init__(self, job: Job, out: Path, given: argparse.Namespace) -> None:
        self.job, self.out, self.minutes, self.patience = job, out, given.minutes, given.patience
        self.every, self.choose = given.every, given.choose
        self.ended_by = ""
        self.model: Any = None
        self.history: list[dict[str, float]] = []
        self.best, self.best_epoch, self.best_ndcg = -1.0, 0, 0.0
        self.seconds = 0.0
        self.began = time.monotonic()

    def __deepcopy__(self, memo: dict[int, Any]) -> Keeper:
        """Returns itself: RecTools trains with a copy of the trainer, but the lists are kept here."""
        return self

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts the clock."""
        self.epoch_began = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, module: TargetsOnly) -> None:
        """Stops the clock and validates."""
        self.seconds += time.process_time() - self.epoch_began
        epoch = trainer.current_epoch + 1
        late = time.monotonic() - self.began > self.minutes * 60
        if late or epoch == trainer.max_epochs:
            self.ended_by = "minutes" if late else "epochs"
        if epoch % self.every == 0 or self.ended_by:
            self.validate(epoch, module.torch_model)
        if not self.ended_by and epoch - self.best_epoch >= self.patience:
            self.ended_by = "patience"
            self.write()
        trainer.should_stop = bool(self.ended_by)

    @torch.no_grad()
    def validate(self, epoch: int, network: Any) -> None:
        """Validates an epoch, and keeps its lists if it is the best."""
        network.eval()
        job = self.job
        lists = self.lists(network, [job.user(u)[:-1] for u in job.asked])
        hit = lists[:, :10] == np.array([job.user(u)[-1] for u in job.asked])[:, None]
        ndcg = float((hit / np.log2(np.arange(10) + 2)).sum(axis=1).mean())
        figures = {"recall@10": float(hit.any(axis=1).mean()), "ndcg@10": ndcg}
        self.history.append({"epoch": epoch, **figures, "cpu_seconds": self.seconds})
        if figures[self.choose] > self.best:
            self.best, self.best_epoch, self.best_ndcg = figures[self.choose], epoch, ndcg
            np.savez(self.out.with_suffix(".npz"), lists=self.lists(network, [job.user(u) for u in range(job.users)]))
        self.write()
        print(json.dumps(self.history[-1]), flush=True)  # noqa: T201 - the parent shows it
        network.train()

    def write(self) -> None:
        """Writes the figures so far."""
        about = {"epoch": self.best_epoch, "valid_ndcg@10": self.best_ndcg, "history": self.history}
        about |= {"chosen_by": self.choose, "ended_by": self.ended_by}
        self.out.with_suffix(".json").write_text(json.dumps(about), "utf-8")

    def lists(self, network: Any, histories: list[np.ndarray]) -> np.ndarray:
        """Returns [histories, 20] items by score, without those of the history."""
        outside = list(self.model.data_preparator.item_id_map.external_ids)
        inside = {item: row for row, item in enumerate(outside) if not isinstance(item, str)}
        name = np.array([-1 if isinstance(item, str) else int(item) for item in outside])
        table = network.item_model.get_all_embeddings()
        found = []
        for at in range(0, len(histories), 512):
            rows = [[inside[i] for i in h.tolist() if i in inside] for h in histories[at : at + 512]]
            x = np.zeros((len(rows), LENGTH), np.int64)
            for row, items in zip(x, rows, strict=True):
                if items:
                    row[-min(len(items), LENGTH) :] = items[-LENGTH:]
            score = network.encode_sessions({"x": torch.from_numpy(x)}, table)[:, -1] @ table.T
            score[:, name < 0] = -torch.inf
            for row, items in zip(score, rows, strict=True):
                row[items] = -torch.inf
            found.append(name[score.topk(DEPTH, dim=1).indices.numpy()])
        return np.concatenate(found)


class Job:
    """The events and questions of a job file."""

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            self.offsets, self.item, self.asked = arrays["offsets"], arrays["item"], arrays["asked"]

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    def user(self, u: int) -> np.ndarray:
        """Returns the events of a user."""
        return np.asarray(self.item[self.offsets[u] : self.offsets[u + 1]])

    def training(self) -> pd.DataFrame:
        """Returns interactions without the validation targets; times are positions, which only give the order."""
        user = np.repeat(np.arange(self.users), np.diff(self.offsets))
        place = np.arange(len(self.item)) - self.offsets[user]
        kept = np.ones(len(self.item), bool)
        kept[self.offsets[self.asked + 1] - 1] = False
        times = pd.Timestamp("2000-01-01") + pd.to_timedelta(place, unit="D")
        columns = {Columns.User: user, Columns.Item: self.item, Columns.Weight: 1.0, Columns.Datetime: times}
        return pd.DataFrame(columns)[kept]


def main() -> None:
    """Trains and writes the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--patience", type=int, default=50)
    parser.add_argument("--every", type=int, default=EVERY, help="Epochs from one validation to the next.")
    parser.add_argument("--choose", choices=("ndcg@10", "recall@10"), default="ndcg@10")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    seed_everything(given.seed)
    job = Job(given.job)
    keeper = Keeper(job, given.out, given)

    def trainer() -> Trainer:
        off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        return Trainer(max_epochs=given.epochs, logger=False, accelerator="cpu", callbacks=[keeper], **off)

    keeper.model = SASRecModel(
        n_blocks=1,
        n_heads=1,
        n_factors=given.factors,
        dropout_rate=0.2,
        session_max_len=LENGTH,
        loss="sampled_softmax",
        n_negatives=256,
        lr=1e-3,
        batch_size=128,
        deterministic=True,
        lightning_module_type=TargetsOnly,
        get_trainer_func=trainer,
    )
    keeper.model.fit(Dataset.construct(job.training()))


if __name__ == "__main__":
    main()
