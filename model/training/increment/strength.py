"""Chooses how strongly the old weights are held.

Each of a few strengths trains one epoch from the same start. Validation asks for new events only, so the best figure
would favour forgetting: of the strengths that it cannot tell from the best, by one standard error of the paired
difference, the strongest is taken, because it forgets least.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.training.config import TrainConfig
from model.training.increment.settings import IncrementSettings
from model.training.increment.start import Start
from model.training.increment.trainer import IncrementTrainer
from model.training.trainer import MAX_QUESTIONS, Trainer
from model.training.validation import validation_gains
from service.artifact.array_types import Float64Array

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
EPOCHS = 1


@dataclass(frozen=True)
class Choice:
    """The strength chosen, and the validation NDCG@10 of each that was tried."""

    strength: float
    ndcg_at_10: Mapping[float, float]

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, for `run.json`."""
        return {"strength": self.strength, "tried": {f"{s:g}": round(v, 4) for s, v in self.ndcg_at_10.items()}}


def choose_strength(trial: Callable[[float, Path], Trainer], say: Callable[[str], None] = lambda _: None) -> Choice:
    """Tries all strengths.

    Args:
        trial: Returns a training of `EPOCHS` epochs in a folder, with a strength.
        say: Receives the name of each step.
    """
    gains: dict[float, Float64Array] = {}
    for strength in STRENGTHS:
        say(f"trying to hold old weights with strength {strength:g}")
        with tempfile.TemporaryDirectory(prefix="gpt4rec-") as folder:
            trainer = trial(strength, Path(folder))
            torch.set_num_threads(trainer.config.threads or os.cpu_count() or 1)
            for _ in range(EPOCHS):
                trainer.train_epoch()
                trainer.progress.epoch += 1
            gains[strength] = validation_gains(
                trainer.average, trainer.split, trainer.vocabulary, MAX_QUESTIONS,
                exclude_history=not trainer.config.repeats,
            )  # fmt: skip
    return Choice(strongest_alike(gains), {strength: float(of.mean()) for strength, of in gains.items()})


def decided(
    start: Start, config: TrainConfig, settings: IncrementSettings, say: Callable[[str], None] = lambda _: None
) -> tuple[IncrementSettings, dict[str, Any] | None]:
    """Returns the settings with a strength, and how it was chosen; None if it was given.

    A run that is itself an increment and chose its strength passes it on, so only the first increment after a whole
    training takes the time to choose.

    Args:
        start: What the increment starts from.
        config: Its configuration.
        settings: Its settings; the strength may be open.
        say: Receives the name of each step.
    """
    if settings.strength is not None:
        return settings, None
    before = start.run.increment
    if before is not None and before.get("chosen"):
        return replace(settings, strength=before["strength"]), dict(before["chosen"])

    def trial(strength: float, folder: Path) -> Trainer:
        return IncrementTrainer(start, folder, replace(config, max_epochs=EPOCHS), replace(settings, strength=strength))

    choice = choose_strength(trial, say)
    return replace(settings, strength=choice.strength), choice.to_json()


def strongest_alike(gains: Mapping[float, Float64Array]) -> float:
    """Returns the strongest whose gains [questions] are within one standard error of those of the best."""
    best = max(gains, key=lambda strength: (float(gains[strength].mean()), strength))
    alike = []
    for strength, of in gains.items():
        lost = gains[best] - of
        error = float(lost.std(ddof=1)) / math.sqrt(len(lost)) if len(lost) > 1 else 0.0
        if float(np.mean(lost)) <= error:
            alike.append(strength)
    return max(alike)
