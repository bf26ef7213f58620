"""A prompted head that is trained on one catalogue, and asked about another that it never saw.

    python -m loadtests.quality.zero_shot --train data/office --asked data/ml-100k --work work

The limits were written before any figure: NDCG@10 of the strange catalogue must be above that of its popularity and
above that of text similarity alone, both by more than chance (the lower end of the paired 95 % interval above 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from scipy import sparse

from loadtests.common.results import MEMORY, record, row
from loadtests.quality.cold_trial import nearest_ranker
from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Holdout, Split, leave_one_out
from model.evaluation.evaluate import DEPTH, Histories, Ranker, evaluate, popularity_ranker
from model.network.prompted import PromptedHead
from model.texts.prompts import ITEMS, NEXT, PROMPT_TOKENS
from model.texts.sentence_vectors import item_text, item_text_vectors, item_vectors
from model.tokenizers.item_vectors import co_occurrence, positive_pmi
from model.training.prompted import Catalogue, Encode, Question, asked, fit_prompted
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.scorers.popularity import Popularity
from service.cli.outermost import run_command

MEASURE = "ndcg@10"
RATED_LEAST = 100  # ratings of a log from which they are learned

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def zero_shot(
    train: Annotated[Path, typer.Option(help="Data set that is trained on.")],
    asked: Annotated[Path, typer.Option(help="Data set that is asked about; only its texts are read before.")],
    work: Annotated[Path, typer.Option(help="Folder that keeps the vectors of prompts.")],
    users: Annotated[int, typer.Option(min=2, help="Users who are trained on, and as many who are asked for.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of users and training.")] = 0,
    kept: Annotated[bool, typer.Option("--keep/--no-keep", help="Whether to record the rows.")] = True,
) -> None:
    """Train on one catalogue, ask about another, and record both criteria."""
    work.mkdir(parents=True, exist_ok=True)

    def encode(texts: Sequence[str]) -> FloatArray:
        return item_vectors(texts, work, tokens=PROMPT_TOKENS)

    head = trained(Dataset.load(train), train, encode, users, seed)
    found = measured(head, Dataset.load(asked), asked, encode, users, seed)
    command = f"python -m loadtests.quality.zero_shot --train {train.name} --asked {asked.name} --users {users}"
    for other, (difference, low) in found.items():
        console.print(f"zero-shot − {other}: {difference:+.4f}, at least {low:+.4f}", highlight=False)
        if kept:
            name = f"zero-shot, {train.name} → {asked.name}: {MEASURE} above {other}, lower end, seed {seed}"
            record(MEMORY, row(name, low, "difference", command, above=0))


def trained(dataset: Dataset, data: Path, encode: Encode, users: int, seed: int) -> PromptedHead:
    """Trains the head on the training part of a data set: each drawn user's last event there is a question."""
    log = leave_one_out(sequences(dataset)).train
    catalogue = catalogue_of(dataset, data, log.item_ids)
    questions = standardised(last_events(log, values_of(dataset), users, seed))
    head = fit_prompted(questions, catalogue, used_together(log), encode, seed=seed)
    console.print(f"of what prompts say of items, a share of {float(head.share):g} counts", highlight=False)
    return head


def last_events(log: Sequences, values: Mapping[tuple[str, str], float], users: int, seed: int) -> list[Question]:
    """Returns the last event of some users of a log as questions.

    Args:
        log: The log.
        values: Ratings by user and item, where there are any.
        users: How many users are drawn.
        seed: Seed of the draw.
    """
    long = np.flatnonzero(log.lengths >= 2)
    drawn = np.sort(np.random.default_rng(seed).permutation(long)[:users])
    return [question_of(log, log.user(user), user, values) for user in drawn.tolist()]


def question_of(log: Sequences, rows: slice, user: int, values: Mapping[tuple[str, str], float]) -> Question:
    """Returns the last of some events of a user as a question, with the events before it as its history."""
    items = log.item[rows]
    ratings = [values.get((log.user_ids[user], log.item_ids[item])) for item in items.tolist()]
    return Question(items[:-1], int(items[-1]), tuple(ratings[:-1]), ratings[-1])


def used_together(log: Sequences) -> sparse.csr_array:
    """Returns how much more often than by chance two items are in one history, [N, N]."""
    return positive_pmi(co_occurrence(log.item, log.offsets, log.n_items)).tocsr()


def standardised(questions: Sequence[Question]) -> list[Question]:
    """Returns the questions with ratings of mean 0 and deviation 1; with none where the log has hardly any."""
    scale = scale_of(questions)
    if scale is None:
        return [Question(one.history, one.target) for one in questions]
    mean, deviation = scale
    scaled = (None if one.rating is None else (one.rating - mean) / deviation for one in questions)
    return [
        Question(one.history, one.target, one.ratings, rating) for one, rating in zip(questions, scaled, strict=True)
    ]


def scale_of(questions: Sequence[Question]) -> tuple[float, float] | None:
    """Returns mean and deviation of the ratings; None where hardly any are known, or all are the same."""
    known = np.array([one.rating for one in questions if one.rating is not None])
    if len(known) < RATED_LEAST or not known.std():
        return None
    return float(known.mean()), float(known.std())


def measured(
    head: PromptedHead, dataset: Dataset, data: Path, encode: Encode, users: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Returns how far the head is above popularity and text similarity, and the lower ends of the intervals."""
    split = leave_one_out(sequences(dataset))
    split = sampled(split, users, seed)
    catalogue = catalogue_of(dataset, data, split.train.item_ids)
    popularity = Popularity.fit(split.train.item, split.train.n_items)
    systems = {
        "zero-shot": head_ranker(head, catalogue, encode),
        "popularity": popularity_ranker(popularity),
        "text similarity": nearest_ranker(catalogue.vectors),
    }
    result = evaluate(systems, split, "test")
    for name, system in result.systems.items():
        console.print(f"{name}: {MEASURE} {system.figures[MEASURE]:.4f}", highlight=False)
    return {
        one.baseline: (one.interval.difference, one.interval.low) for one in result.comparisons if one.metric == MEASURE
    }


def sampled(split: Split, users: int, seed: int) -> Split:
    """Returns the split with some users of the test alone."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(split.test))[:users])
    test: Holdout = split.test.rows(rows)
    return replace(split, test=test)


def head_ranker(head: PromptedHead, catalogue: Catalogue, encode: Encode) -> Ranker:
    """Ranks a catalogue by a prompted head; items without a text come last."""
    items, alike = torch.from_numpy(catalogue.vectors), torch.from_numpy(catalogue.alike)
    empty = ~catalogue.vectors.any(axis=1)

    @torch.no_grad()
    def rank(histories: Histories) -> IntArray:
        questions = [Question(histories.items(i)[-ITEMS:], 0) for i in range(len(histories))]
        scores = head.next_scores(asked(NEXT, questions, catalogue, encode), items, alike).numpy()
        scores[:, empty] -= 1e6
        for i in range(len(histories)):
            scores[i, histories.excluded(i)] = -np.inf
        lists = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH].astype(np.int64)
        out = np.full((len(histories), DEPTH), -1, np.int64)
        finite = np.isfinite(np.take_along_axis(scores, lists, axis=1))
        out[:, : lists.shape[1]] = np.where(finite, lists, -1)
        return out

    return rank


def catalogue_of(dataset: Dataset, data: Path, item_ids: list[str]) -> Catalogue:
    """Returns items as texts, for which prompts have room for titles, and as vectors, which the folder keeps."""
    titles = {
        item: item_text(title, text)
        for item, title, text in dataset.items.select("item_id", "title", "text").iter_rows()
    }
    return Catalogue([titles.get(item, "") for item in item_ids], item_text_vectors(dataset, item_ids, data))


def values_of(dataset: Dataset) -> dict[tuple[str, str], float]:
    """Returns the values that users gave items, such as ratings."""
    rated = dataset.events.drop_nulls("value").select("user_id", "item_id", "value")
    return {(user, item): value for user, item, value in rated.iter_rows()}


if __name__ == "__main__":
    run_command(app)
