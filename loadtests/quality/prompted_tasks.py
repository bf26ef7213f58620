"""Ratings and reasons of a prompted head, on the catalogue that it was trained on.

    python -m loadtests.quality.prompted_tasks --data data/ml-100k --work work

The head is trained on all three tasks, as `loadtests.quality.zero_shot` trains it. The last event of everybody, which
no training read, is asked about.

- A rating: the head reads what the user has rated how, and says how the user will rate the next item. It is compared
  with the mean of all ratings, and with the sum of what user and item lie above it.
- A reason: which of the newest items of the history is why the next one came. What the log says of it is the item that
  is used together with the next one the most, beyond chance, in the training part. The head is compared with the newest
  item and with the item whose text is most alike.

The limits were written before any figure: the head must be better than each of them by more than chance (the lower end
of the paired 95 % interval above 0). What has no rating in the log is not asked for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from scipy import sparse

from loadtests.common.results import MEMORY, record, row
from loadtests.quality.zero_shot import (
    catalogue_of,
    last_events,
    question_of,
    scale_of,
    standardised,
    used_together,
    values_of,
)
from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Split, leave_one_out
from model.evaluation.bootstrap import paired_bootstrap
from model.network.prompted import PromptedHead
from model.texts.prompts import ITEMS, PROMPT_TOKENS, RATING, WHY
from model.texts.sentence_vectors import item_vectors
from model.training.prompted import Catalogue, Encode, Question, asked, fit_prompted, reasons
from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.cli.outermost import run_command

# Ratings by which a user or an item counts half (the usual shrinkage of biases).
SHRINK = 10.0

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def prompted_tasks(
    data: Annotated[Path, typer.Option(help="Data set that is trained on and asked about.")],
    work: Annotated[Path, typer.Option(help="Folder that keeps the vectors of prompts.")],
    users: Annotated[int, typer.Option(min=2, help="Users who are trained on, and as many who are asked.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of users and training.")] = 0,
    kept: Annotated[bool, typer.Option("--keep/--no-keep", help="Whether to record the rows.")] = True,
) -> None:
    """Train on one catalogue, ask for ratings and reasons, and record what is better than what."""
    work.mkdir(parents=True, exist_ok=True)

    def encode(texts: Sequence[str]) -> FloatArray:
        return item_vectors(texts, work, tokens=PROMPT_TOKENS)

    dataset = Dataset.load(data)
    split, values = leave_one_out(sequences(dataset)), values_of(dataset)
    catalogue, together = catalogue_of(dataset, data, split.train.item_ids), used_together(split.train)
    learned = last_events(split.train, values, users, seed)
    head = fit_prompted(standardised(learned), catalogue, together, encode, seed=seed)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(split.test))[:users])
    test = questions_of(split, drawn, values)
    found = {**rating_errors(head, learned, test, split, drawn, values, catalogue, encode),
             **reasons_found(head, test, catalogue, together, encode)}  # fmt: skip
    command = f"python -m loadtests.quality.prompted_tasks --data {data.name} --work DIR --users {users}"
    for task, systems in found.items():
        for name, of in systems.items():
            console.print(f"{task}, {name}: {of.mean():.4f} of {len(of)}", highlight=False)
            if kept:
                record(MEMORY, row(f"prompted head, {data.name}: {task}, {name}", float(of.mean()), "mean", command))
            if name == HEAD:
                continue
            sign = 1.0 if task == REASONS else -1.0
            low = paired_bootstrap(sign * systems[HEAD], sign * of).low
            console.print(f"{task}: better than {name} by at least {low:+.4f}", highlight=False)
            if kept:
                criterion = f"prompted head, {data.name}: {task} better than {name}, lower end, seed {seed}"
                record(MEMORY, row(criterion, low, "difference", command, above=0))


HEAD = "the head"
RATINGS, REASONS = "squared error of ratings", "reasons named first"


def questions_of(split: Split, drawn: IntArray, values: Mapping[tuple[str, str], float]) -> list[Question]:
    """Returns the questions of the test with these numbers, with their ratings."""
    log, test = split.sequences, split.test.rows(drawn)
    return [
        question_of(log, slice(int(log.offsets[user]), int(end) + 1), user, values)
        for user, end in zip(test.users.tolist(), test.history_end.tolist(), strict=True)
    ]


@torch.no_grad()
def rating_errors(
    head: PromptedHead,
    learned: Sequence[Question],
    test: Sequence[Question],
    split: Split,
    drawn: IntArray,
    values: Mapping[tuple[str, str], float],
    catalogue: Catalogue,
    encode: Encode,
) -> dict[str, dict[str, Float64Array]]:
    """Returns squared errors of ratings of rated questions, by system; nothing where the log has no ratings.

    Args:
        head: The trained head.
        learned: The questions that it was trained on, with ratings as they are.
        test: The questions.
        split: The split.
        drawn: Their numbers in the test.
        values: Ratings by user and item.
        catalogue: The items.
        encode: The frozen encoder.
    """
    scale, rated = scale_of(learned), [n for n, one in enumerate(test) if one.rating is not None]
    if scale is None or not rated:
        return {}
    some = [test[n] for n in rated]
    truth = np.array([one.rating for one in some], np.float64)
    vectors = torch.from_numpy(catalogue.vectors)[[one.target for one in some]]
    said = head.ratings(asked(RATING, some, catalogue, encode), vectors).numpy() * scale[1] + scale[0]
    mean, of_user, of_item = biases(split.train, values)
    users = split.test.users[drawn][rated]
    target = np.array([one.target for one in some])
    guesses = {
        HEAD: said,
        "the mean": np.full(len(some), mean),
        "user and item": mean + of_user[users] + of_item[target],
    }
    return {RATINGS: {name: (np.asarray(guess, np.float64) - truth) ** 2 for name, guess in guesses.items()}}


def biases(log: Sequences, values: Mapping[tuple[str, str], float]) -> tuple[float, Float64Array, Float64Array]:
    """Returns the mean of the ratings of a log, and by how much items, then users, lie above it, shrunk towards it."""
    user = np.repeat(np.arange(len(log.lengths)), log.lengths)
    pairs = ((log.user_ids[u], log.item_ids[i]) for u, i in zip(user.tolist(), log.item.tolist(), strict=True))
    rating = np.array([values.get(pair, np.nan) for pair in pairs], np.float64)
    known = ~np.isnan(rating)
    user, item, rating = user[known], log.item[known], rating[known]
    mean = float(rating.mean())
    of_item = _shrunk(item, rating - mean, log.n_items)
    return mean, _shrunk(user, rating - mean - of_item[item], len(log.lengths)), of_item


def _shrunk(of: IntArray, value: Float64Array, n: int) -> Float64Array:
    total: Float64Array = np.bincount(of, value, n) / (np.bincount(of, minlength=n) + SHRINK)
    return total


@torch.no_grad()
def reasons_found(
    head: PromptedHead, test: Sequence[Question], catalogue: Catalogue, together: sparse.csr_array, encode: Encode
) -> dict[str, dict[str, Float64Array]]:
    """Returns by system whether the likeliest reason was named first, of questions to which the log has an answer.

    Args:
        head: The trained head.
        test: The questions.
        catalogue: The items.
        together: What the training part says of reasons (`used_together`).
        encode: The frozen encoder.
    """
    # A question about the only item of a history answers itself.
    some = [one for one in test if len(one.history) > 1]
    share = reasons(some, together) if some else np.zeros((0, ITEMS), np.float32)
    has = np.flatnonzero(share.max(axis=1, initial=0.0) > 0)
    if not len(has):
        return {}
    some, share = [some[n] for n in has.tolist()], share[has]
    prompts = asked(WHY, some, catalogue, encode)
    target = torch.tensor([one.target for one in some])
    said = head.reason_scores(prompts, target, torch.from_numpy(catalogue.alike)).numpy()
    likeness = np.einsum("btd,bd->bt", prompts.history.numpy(), catalogue.vectors[target.numpy()])
    by_text = np.where(prompts.valid.numpy(), likeness, -np.inf)
    places = {
        HEAD: said.argmax(axis=1),
        "the newest item": np.full(len(some), ITEMS - 1),
        "text": by_text.argmax(axis=1),
    }
    rows = np.arange(len(some))
    return {REASONS: {name: (share[rows, at] == share.max(axis=1)).astype(np.float64) for name, at in places.items()}}


if __name__ == "__main__":
    run_command(app)
