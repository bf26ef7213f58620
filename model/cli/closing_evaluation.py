"""The evaluation that ends a training. It is prepared before the epochs, so that a time limit can cover it too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from model.cli.steps import counts, steps
from model.cli.training_progress import duration
from model.data.dataset import Dataset
from model.data.split import Split
from model.errors import RunError
from model.evaluation.baselines import Baselines, fit_baselines
from model.evaluation.evaluate import Part, evaluate, questions_of
from model.evaluation.metrics import item_content
from model.evaluation.rankers import network_ranker
from model.evaluation.report import Evaluation
from model.evaluation.sharded import Opened, Source, lists_by, systems_of
from model.training.run_folder import Run
from model.training.time_limit import EVALUATION_SHARE, TUNING_SHARE, VALIDATION_SHARE, TimeLimit
from model.training.trainer import MAX_QUESTIONS, Trainer
from model.training.validation import validation_ndcg

# Users from whose time that of all is estimated, after a few that are not timed.
_TIMED, _UNTIMED = 64, 4
# An estimate gets this much headroom.
_HEADROOM = 1.25


def side_by_side(
    opened: Opened, part: Part, console: Console, *, source: Source | None = None, processes: int = 1
) -> Evaluation:
    """Evaluates systems beside each other, and prints the tables.

    Args:
        opened: What is evaluated.
        part: The hold-out part.
        console: Where the tables are printed.
        source: What is evaluated, as other processes open it; only for several processes.
        processes: How many processes make the lists.

    Raises:
        RunError: Nobody is held out.
    """
    dataset, split, systems = opened.dataset, opened.split, opened.systems
    if not len(questions_of(split, part)):
        raise RunError(
            f"no user is held out in the {part} part, so there is nothing to evaluate", fix="import a longer log"
        )
    content = item_content(dataset.items, split.sequences.item_ids, dataset.category_kind)
    with counts(console, systems) as advance:
        lists = None
        if source is not None and processes > 1:
            lists = lists_by(source, opened, part, processes, advance)
        result = evaluate(
            systems, split, part, content=content, exclude_history=opened.exclude_history, progress=advance, lists=lists
        )
    console.print(result.table())
    console.print(result.comparison_table())
    for sentence in result.sentences():
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return result


@dataclass(frozen=True)
class ClosingEvaluation:
    """The evaluation of a run, with everything that can be prepared before the network is trained.

    Attributes:
        dataset: The data set.
        split: Its split; the test part is cut to the users for whom there is time.
        baselines: Item-CF and popularity.
    """

    dataset: Dataset
    split: Split
    baselines: Baselines

    def of(self, trainer: Trainer, console: Console) -> Evaluation:
        """Evaluates the best weights of the run."""
        ranker = network_ranker(Run.open(trainer.folder).model(), trainer.vocabulary)
        item_cf, popularity = self.baselines.item_cf, self.baselines.popularity
        systems = systems_of(ranker, item_cf, popularity)
        return side_by_side(Opened(self.dataset, self.split, systems, not trainer.config.repeats), "test", console)


def prepare(
    trainer: Trainer, dataset: Dataset, limit: TimeLimit, console: Console, *, tune: bool = True
) -> ClosingEvaluation:
    """Tunes item-CF, and keeps time for validations and the evaluation, which are cut if they need too much.

    Says how the time is used: what was cut, and what could not be.

    Args:
        trainer: The trainer, ready to start or to resume.
        dataset: The data set.
        limit: The time of the run.
        console: Where the sentences are printed.
        tune: Whether item-CF is tuned; an increment compares with its first setting, which takes a moment.
    """
    prepared_s = limit.used_s - trainer.progress.seconds
    with steps(console, "tuning item-CF on validation"):
        baselines = fit_baselines(
            trainer.split,
            exclude_history=not trainer.config.repeats,
            deadline=limit.deadline(TUNING_SHARE) if tune else time.monotonic(),
        )
    if limit.cap_s is None:
        return ClosingEvaluation(dataset, trainer.split, baselines)
    notes = [f"preparing took {duration(prepared_s)} of {duration(limit.cap_s)}, which cannot be cut"]
    if (tried := len(baselines.trials)) < Baselines.CANDIDATES:
        notes.append(f"item-CF: {tried} of {Baselines.CANDIDATES} settings were tried")
    with steps(console, "estimating the time of validation and evaluation"):
        split, evaluation_s = _bounded_test(trainer, dataset, baselines, limit, notes)
        validation_s = _bounded_validation(trainer, limit, notes)
    limit.reserved_s = evaluation_s + validation_s
    notes.append(
        f"estimated: {duration(validation_s)} for a validation, {duration(evaluation_s)} for the evaluation, "
        f"{duration(max(0.0, limit.epochs_left_s))} for the epochs"
    )
    if limit.epochs_left_s <= 0 and not trainer.progress.epoch:
        least = (limit.used_s + limit.reserved_s) / 60
        notes.append(
            f"--max-minutes is too short for this data: it ends after one batch, in about {least:.1f} minutes. "
            f"Give it {max(0.1, 2 * least):.1f} or more"
        )
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    return ClosingEvaluation(dataset, split, baselines)


def _bounded_test(
    trainer: Trainer, dataset: Dataset, baselines: Baselines, limit: TimeLimit, notes: list[str]
) -> tuple[Split, float]:
    """The split with as many test users as there is time for, and the seconds that their evaluation takes."""
    split, users = trainer.split, len(trainer.split.test)
    systems = systems_of(network_ranker(trainer.average, trainer.vocabulary), baselines.item_cf, baselines.popularity)
    content = item_content(dataset.items, split.sequences.item_ids, dataset.category_kind)

    def ask(n: int, **how: Any) -> None:
        if n:
            asked = replace(split, test=split.test.sample(n))
            evaluate(systems, asked, content=content, exclude_history=not trainer.config.repeats, **how)

    began = time.monotonic()
    ask(min(users, _UNTIMED))
    once_s = time.monotonic() - began  # above all, the bootstrap
    all_s = _HEADROOM * _estimate(lambda n: ask(n, samples=1), users)
    asked = limit.users_for(users, all_s, EVALUATION_SHARE)
    if asked < users:
        notes.append(f"the evaluation asks {asked:,} of {users:,} test users")
    return replace(split, test=split.test.sample(asked)), once_s + all_s * asked / max(users, 1)


def _bounded_validation(trainer: Trainer, limit: TimeLimit, notes: list[str]) -> float:
    """Bounds the users of a validation by the time there is; returns the seconds that one takes.

    A resumed run keeps asking as many as before, so that its epochs stay comparable.
    """
    users = min(len(trainer.split.valid), trainer.progress.questions or MAX_QUESTIONS)
    all_s = _HEADROOM * _estimate(
        lambda n: validation_ndcg(trainer.average, trainer.split, trainer.vocabulary, n), users
    )
    decided = trainer.progress.questions or trainer.progress.epoch
    asked = users if decided else limit.users_for(users, all_s, VALIDATION_SHARE)
    if asked < users:
        notes.append(f"a validation asks {asked:,} of {len(trainer.split.valid):,} users")
    trainer.progress.questions = asked
    return all_s * asked / users


def _estimate(ask: Callable[[int], object], users: int) -> float:
    """The seconds that asking all users takes, from the time of a few."""
    timed = min(users, _TIMED)
    ask(min(users, _UNTIMED))
    began = time.monotonic()
    ask(timed)
    return (time.monotonic() - began) * users / max(timed, 1)
