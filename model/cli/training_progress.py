"""Shows how far a training is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from model.cli.steps import LINE_S

if TYPE_CHECKING:
    from model.training.reports import Tick
    from model.training.time_limit import TimeLimit
    from model.training.trainer import Trainer

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """When a training will end: by its epochs or by its time, whichever is nearer.

    Attributes:
        steps: Steps that all epochs have.
        first_step: Steps that were made before this process resumed the training.
        cap_s: Time that the training may take, in seconds; None without a limit.
        before_s: Part of that time which was used before.
    """

    steps: int
    first_step: int = 0
    cap_s: float | None = None
    before_s: float = 0.0

    def of(self, step: int, elapsed_s: float) -> float:
        """Returns the seconds left.

        Args:
            step: Steps made, those before included.
            elapsed_s: Seconds since this process began to train.
        """
        made = max(1, step - self.first_step)
        by_epochs = (self.steps - step) * elapsed_s / made
        if self.cap_s is None:
            return max(0.0, by_epochs)
        return max(0.0, min(by_epochs, self.cap_s - self.before_s - elapsed_s))

    def share(self, step: int, elapsed_s: float) -> float:
        """Returns the share of the training that is over, 0 … 1."""
        used = self.before_s + elapsed_s
        left = self.of(step, elapsed_s)
        return used / (used + left) if used + left > 0 else 0.0


def fit(trainer: Trainer, console: Console, limit: TimeLimit) -> None:
    """Trains, and shows how far it is.

    Args:
        trainer: The trainer, ready to start or to resume.
        console: Where progress is shown.
        limit: The time of the run.

    Raises:
        typer.Exit: The training was interrupted; it can be resumed from the last finished epoch.
    """
    try:
        if console.is_terminal:
            with _bar(console) as bar:
                trainer.fit(limit=limit, report=ProgressReport(trainer, limit, _on_bar(bar)))
        else:
            trainer.fit(limit=limit, report=ProgressReport(trainer, limit, as_lines(console)))
    except KeyboardInterrupt:
        console.print(f"interrupted; continue with `--out {trainer.folder} --resume`", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a training.

    Attributes:
        share: The share that is over, 0 … 1.
        words: Epoch, loss and best NDCG@10.
        elapsed_s: Seconds that the run has taken.
        left_s: Seconds that are left.
    """

    share: float
    words: str
    elapsed_s: float
    left_s: float


class ProgressReport:
    """Turns the trainer's ticks into what is shown.

    Args:
        trainer: The trainer, ready to start or to resume.
        limit: The time of the run.
        show: Shows it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        trainer: Trainer,
        limit: TimeLimit,
        show: Callable[[Shown], None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._trainer, self._show, self._clock = trainer, show, clock
        self._cap_s = limit.epochs_end_s
        self._began = clock()
        self._first_epoch, self._before_s = trainer.progress.epoch, limit.used_s

    def __call__(self, tick: Tick) -> None:
        """Shows how far the training is at a tick."""
        left = TimeLeft(
            self._trainer.config.max_epochs * tick.total, self._first_epoch * tick.total, self._cap_s, self._before_s
        )
        step, elapsed_s = tick.epoch * tick.total + tick.done, self._clock() - self._began
        best = f"{tick.progress.best_ndcg:.4f}" if tick.progress.best_epoch >= 0 else "–"
        words = f"epoch {tick.epoch + 1}  loss {tick.loss:.3f}  best NDCG@10 {best}"
        self._show(Shown(left.share(step, elapsed_s), words, self._before_s + elapsed_s, left.of(step, elapsed_s)))


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[times]}"), console=console
    )  # fmt: skip


def _on_bar(bar: Progress) -> Callable[[Shown], None]:
    task = bar.add_task("training", total=1.0, times="")

    def show(now: Shown) -> None:
        bar.update(task, completed=now.share, description=now.words, times=_times(now))

    return show


def as_lines(console: Console, clock: Clock = time.monotonic) -> Callable[[Shown], None]:
    """Returns the function that prints a line, at most every `LINE_S` seconds."""
    latest = -math.inf

    def show(now: Shown) -> None:
        nonlocal latest
        if clock() - latest >= LINE_S:
            latest = clock()
            console.print(f"{now.share:4.0%}  {now.words}  {_times(now)}", highlight=False, soft_wrap=True)

    return show


def _times(now: Shown) -> str:
    return f"{duration(now.elapsed_s)} elapsed, {duration(now.left_s)} left"


def duration(seconds: float) -> str:
    """Returns a time as `1:05` (minutes and seconds) or `2:01:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
