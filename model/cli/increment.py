"""`gpt4rec train --init`: prepares an increment, and says what is new in its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from model.data.dataset import sequences
from model.errors import ConfigError
from model.training.increment.settings import IncrementSettings, increment_config
from model.training.increment.start import start_from
from model.training.increment.strength import decided
from model.training.increment.trainer import IncrementTrainer
from model.training.run_folder import Run


@dataclass(frozen=True)
class Asked:
    """What the command line says of an increment.

    Attributes:
        init: The run to go on from.
        old: Data set of that run, where the new one holds only new events.
        keep_encoder: Whether the encoder stays.
        ewc: Strength of the consolidation, or "auto".
        replay: Share of old sequences.
    """

    init: Path
    old: Path | None
    keep_encoder: bool
    ewc: str
    replay: float

    def settings(self) -> IncrementSettings:
        """Returns the settings.

        Raises:
            ConfigError: A value is not allowed.
        """
        try:
            strength = None if self.ewc == "auto" else float(self.ewc)
        except ValueError:
            raise ConfigError(f"--ewc must be auto or a number, 0 or more, got {self.ewc!r}") from None
        return IncrementSettings(self.keep_encoder, strength, self.replay)


def open_increment(
    asked: Asked,
    data: Path,
    out: Path,
    config: Path | None,
    assignments: Sequence[str],
    seed: int | None,
    *,
    resume: bool,
    say: Callable[[str], None],
) -> IncrementTrainer:
    """Prepares an increment, or continues one.

    Raises:
        ConfigError: A setting cannot change or is not allowed.
        RunError: The run or the folder cannot be used.
        DataError: The data cannot be used.
    """
    settings, chosen = asked.settings(), None
    start = start_from(asked.init, data, asked.old, out)
    log = sequences(start.data.dataset)
    settled = increment_config(start.run, log, start.memory.new_from_ms, config, assignments, seed)
    if resume and settings.strength is None and (out / "run.json").exists():
        saved = Run.open(out).increment or {}
        settings, chosen = replace(settings, strength=saved.get("strength", 0.0)), saved.get("chosen")
    else:
        settings, chosen = decided(start, settled, settings, say)
    say("preparing: new items, network, batches")
    return IncrementTrainer(start, out, settled, settings, resume=resume, chosen=chosen)


def describe(trainer: IncrementTrainer, console: Console) -> None:
    """Prints what is new, and how the old weights are held."""
    start, settings, log = trainer.start, trainer.settings, trainer.split.sequences
    users = int((log.time_ms[log.offsets[:-1]] >= start.memory.new_from_ms).sum())
    lines = [
        f"new: {trainer.new_positions:,} events to learn from, {users:,} users, {log.n_items - start.n_old:,} items"
        + (f" ({trainer.new_rows})" if log.n_items > start.n_old else ""),
        f"old: held with strength {settings.strength:g}, {settings.replay:.0%} of the sequences replayed"
        + (", the encoder stays" if settings.keep_encoder else ""),
    ]
    for line in [*lines, *trainer.notes]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
