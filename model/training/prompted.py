"""Trains a prompted head on one catalogue, and asks it on any: histories and items are texts to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional as F  # noqa: N812

from model.network.prompted import Prompted, PromptedHead
from model.texts.prompts import ITEMS, NEXT, RATING, WHY, prompt
from service.artifact.array_types import FloatArray, IntArray

# Returns the sentence vectors [n, d] of texts, of length 1 or 0.
Encode = Callable[[Sequence[str]], FloatArray]

EPOCHS, BATCH, RATE, DECAY = 20, 64, 1e-3, 0.1


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items as texts.

    Attributes:
        texts: [N] texts; an empty one names nothing.
        vectors: [N, d] their sentence vectors.
    """

    texts: Sequence[str]
    vectors: FloatArray


@dataclass(frozen=True, eq=False)
class Question:
    """A history and what came after it.

    Attributes:
        history: Items, the oldest first; the newest `ITEMS` are read.
        target: The item that came next.
        ratings: Ratings of the history, where the log has them.
        rating: Standardised rating of the target; None without one.
    """

    history: IntArray
    target: int
    ratings: tuple[float | None, ...] = ()
    rating: float | None = None


def asked(task: str, questions: Sequence[Question], catalogue: Catalogue, encode: Encode) -> Prompted:
    """Reads questions as the prompts of a task."""
    texts = []
    for question in questions:
        newest = question.history[-ITEMS:].tolist()
        about = "" if task == NEXT else catalogue.texts[question.target]
        # What was rated how is no reason for what comes next.
        ratings = question.ratings[-ITEMS:] if task == RATING else ()
        texts.append(prompt(task, [catalogue.texts[item] for item in newest], about, ratings))
    rows = np.full((len(questions), ITEMS), -1, np.int64)
    for row, question in enumerate(questions):
        newest = question.history[-ITEMS:]
        rows[row, ITEMS - len(newest) :] = newest
    history = catalogue.vectors[rows] * (rows >= 0)[..., None]
    return Prompted(torch.from_numpy(encode(texts)), torch.from_numpy(history), torch.from_numpy(rows >= 0))


def reasons(questions: Sequence[Question], together: sparse.csr_array) -> FloatArray:
    """Returns what the log says of reasons, [questions, ITEMS], right-aligned: shares that add up to 1, or zeros.

    Args:
        questions: The questions.
        together: [N, N] how much more often than by chance two items are used together; its rows say why.
    """
    out = np.zeros((len(questions), ITEMS), np.float32)
    for row, question in enumerate(questions):
        newest = question.history[-ITEMS:]
        value = np.asarray(together[[question.target]].todense()).ravel()[newest]
        if len(newest) and value.sum() > 0:
            out[row, ITEMS - len(newest) :] = value / value.sum()
    return out


def fit_prompted(
    questions: Sequence[Question],
    catalogue: Catalogue,
    why: FloatArray,
    encode: Encode,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> PromptedHead:
    """Trains the head on all tasks at once; the encoder stays as it is.

    Args:
        questions: Questions of the training part.
        catalogue: Its items.
        why: What `reasons` says of the questions.
        encode: The frozen encoder.
        epochs: Passes over the questions.
        seed: Seed of everything random.
    """
    torch.manual_seed(seed)
    head = PromptedHead(catalogue.vectors.shape[1])
    items = torch.from_numpy(catalogue.vectors)
    target = torch.tensor([question.target for question in questions])
    prompts = {task: asked(task, questions, catalogue, encode) for task in (NEXT, WHY)}
    rated = torch.tensor(
        [row for row, question in enumerate(questions) if question.rating is not None], dtype=torch.int64
    )
    rating = torch.tensor([question.rating or 0.0 for question in questions])
    if len(rated):
        prompts[RATING] = asked(RATING, questions, catalogue, encode)
    share, is_rated = torch.from_numpy(why), torch.zeros(len(questions), dtype=torch.bool)
    is_rated[rated] = True
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = torch.randperm(len(questions), generator=order)
        for start in range(0, len(questions), BATCH):
            rows = shuffled[start : start + BATCH]
            loss = F.cross_entropy(head.next_scores(_rows(prompts[NEXT], rows), items), target[rows])
            log_share = head.reason_scores(_rows(prompts[WHY], rows), items[target[rows]]).log_softmax(dim=1)
            loss = loss - (share[rows] * log_share).sum(dim=1).mean()
            known = rows[is_rated[rows]]
            if len(known):
                found = head.ratings(_rows(prompts[RATING], known), items[target[known]])
                loss = loss + F.mse_loss(found, rating[known])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return head.eval()


def _rows(whole: Prompted, rows: torch.Tensor) -> Prompted:
    return Prompted(whole.prompt[rows], whole.history[rows], whole.valid[rows])
