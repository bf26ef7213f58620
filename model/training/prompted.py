"""Trains a prompted head on one catalogue, and asks it on any: histories and items are texts to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans
from torch.nn import functional as F  # noqa: N812

from model.network.prompted import Prompted, PromptedHead
from model.texts.likeness import VIEWS, likenesses
from model.texts.prompts import ITEMS, NEXT, RATING, WHY, prompt
from service.artifact.array_types import FloatArray, IntArray

# Returns the sentence vectors [n, d] of texts, of length 1 or 0.
Encode = Callable[[Sequence[str]], FloatArray]

EPOCHS, BATCH, RATE, DECAY = 20, 64, 1e-3, 0.1
# The few weights that hold for any catalogue: they are in units of likeness, and not pulled to zero.
FEW_RATE = 0.05
# Each step has a catalogue of its own, of as many items drawn by chance, and the targets.
EPISODE = 512
# How much of what prompts say of items may count.
SHARES = (0.0, 0.25, 0.5, 1.0)
# Regions of the text space, of which half are held out to choose that.
REGIONS = 16
# Questions of each half, because prompts of histories that are cut must be encoded anew.
TRIED = 500


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items as texts.

    Attributes:
        texts: [N] texts; an empty one names nothing.
        vectors: [N, d] their sentence vectors.
    """

    texts: Sequence[str]
    vectors: FloatArray

    @cached_property
    def alike(self) -> FloatArray:
        """[views, N, N] how alike items are by their texts."""
        return likenesses(self.texts, self.vectors)

    def only(self, items: IntArray) -> Catalogue:
        """Returns a catalogue of some of the items, as if there were no others."""
        return Catalogue([self.texts[item] for item in items.tolist()], self.vectors[items])


@dataclass(frozen=True, eq=False)
class Question:
    """A history and what came after it.

    Attributes:
        history: Items, the oldest first; the newest `ITEMS` are read.
        target: The item that came next.
        ratings: Ratings of the history, one for each item, where the log has them.
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
    return Prompted(torch.from_numpy(encode(texts)), torch.from_numpy(history), torch.from_numpy(rows))


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
    together: sparse.csr_array | None,
    encode: Encode,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    share: float | None = None,
) -> PromptedHead:
    """Trains the head on all tasks at once; the encoder stays as it is.

    Args:
        questions: Questions of the training part.
        catalogue: Its items.
        together: [N, N] how much more often than by chance two items are used together, for `reasons`; None
            trains the next item alone.
        encode: The frozen encoder.
        epochs: Passes over the questions.
        seed: Seed of everything random.
        share: How much of what prompts say counts for the next item; None chooses it on regions that are held out.
    """
    if share is None:
        share = chosen_share(questions, catalogue, encode, epochs=epochs, seed=seed)
    torch.manual_seed(seed)
    head = PromptedHead(catalogue.vectors.shape[1], len(VIEWS))
    few = head.few()
    rest = [one for one in head.parameters() if not any(one is other for other in few)]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": few, "lr": FEW_RATE, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
    losses = _Losses(questions, catalogue, together, encode)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = torch.randperm(len(questions), generator=order)
        for start in range(0, len(questions), BATCH):
            rows = shuffled[start : start + BATCH]
            drawn = torch.randperm(len(catalogue.texts), generator=order)[:EPISODE]
            loss = losses.of(head, rows, drawn)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    head.share.fill_(share)
    return head.eval()


def chosen_share(
    questions: Sequence[Question],
    catalogue: Catalogue,
    encode: Encode,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> float:
    """Returns the share of `SHARES` at which targets in a strange part of a catalogue are likeliest.

    The text space is divided into regions. One half of them is trained on as if it were a whole catalogue, and the
    other half is asked about as if it were another.
    """
    draw = np.random.default_rng(seed)
    region, n = _regions(catalogue.vectors, seed)
    strange = np.isin(region, draw.permutation(n)[: n // 2])
    known, asked_for = np.flatnonzero(~strange), np.flatnonzero(strange)
    drawn = [questions[row] for row in draw.permutation(len(questions)).tolist()]
    learned, test = (within(drawn, items, len(strange))[:TRIED] for items in (known, asked_for))
    if not learned or not test:
        return 0.0
    longer = -(-len(questions) // len(learned))
    head = fit_prompted(learned, catalogue.only(known), None, encode, epochs=epochs * longer, seed=seed, share=1.0)
    losses = _Losses(test, catalogue.only(asked_for), None, encode)
    everything, rows = torch.arange(len(asked_for)), torch.arange(len(test))
    found = []
    for share in SHARES:
        head.share.fill_(share)
        with torch.no_grad():
            batches = [rows[start : start + BATCH] for start in range(0, len(test), BATCH)]
            parts = [losses.next(head, batch, everything) for batch in batches]
        found.append(float(torch.cat(parts).mean()))
    return SHARES[int(np.argmin(found))]


def _regions(vectors: FloatArray, seed: int) -> tuple[IntArray, int]:
    """Returns the region of each item [N], and how many there are."""
    n = min(REGIONS, len(np.unique(vectors, axis=0)))
    return KMeans(n, n_init=1, random_state=seed).fit_predict(vectors).astype(np.int64), n


def within(questions: Sequence[Question], items: IntArray, n_items: int) -> list[Question]:
    """Returns the questions as they are if there are no other items; those with a target and a history among them."""
    at = np.full(n_items, -1, np.int64)
    at[items] = np.arange(len(items))
    found = []
    for one in questions:
        kept = np.flatnonzero(at[one.history] >= 0)
        if at[one.target] >= 0 and len(kept):
            ratings = tuple(one.ratings[row] for row in kept.tolist()) if one.ratings else ()
            found.append(replace(one, history=at[one.history[kept]], target=int(at[one.target]), ratings=ratings))
    return found


class _Losses:
    """Losses of the three tasks over questions; without `together`, of the next item alone."""

    def __init__(
        self, questions: Sequence[Question], catalogue: Catalogue, together: sparse.csr_array | None, encode: Encode
    ) -> None:
        self._questions = questions
        self._items, self._alike = torch.from_numpy(catalogue.vectors), torch.from_numpy(catalogue.alike)
        self._target = torch.tensor([question.target for question in questions])
        self._rating = torch.tensor([float("nan") if one.rating is None else one.rating for one in questions])
        self._is_rated = ~self._rating.isnan()
        self._prompts = {NEXT: asked(NEXT, questions, catalogue, encode)}
        if together is not None:
            self._share = torch.from_numpy(reasons(questions, together))
            self._prompts[WHY] = asked(WHY, questions, catalogue, encode)
            if self._is_rated.any():
                self._prompts[RATING] = asked(RATING, questions, catalogue, encode)

    def of(self, head: PromptedHead, rows: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Returns the sum of the losses of all tasks; the next item is sought among `drawn` items and the targets."""
        loss = self.next(head, rows, torch.from_numpy(np.union1d(drawn, self._target[rows]))).mean()
        if WHY not in self._prompts:
            return loss
        scores = head.reason_scores(_rows(self._prompts[WHY], rows), self._target[rows], self._alike)
        log_share = scores.log_softmax(dim=1)
        loss = loss - (self._share[rows] * log_share).sum(dim=1).mean()
        known = rows[self._is_rated[rows]]
        if len(known):
            found = head.ratings(_rows(self._prompts[RATING], known), self._items[self._target[known]])
            loss = loss + F.mse_loss(found, self._rating[known])
        return loss

    def next(self, head: PromptedHead, rows: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
        """Returns the cross-entropy of each next item `among` sorted items, less those of the user's history."""
        prompts = _rows(self._prompts[NEXT], rows)
        scores = head.next_scores(prompts, self._items[among], self._alike[:, :, among])
        out = torch.zeros(len(rows), len(self._items), dtype=torch.bool)
        for row, question in enumerate(rows.tolist()):
            out[row, self._questions[question].history] = True
        out[torch.arange(len(rows)), self._target[rows]] = False
        at = torch.searchsorted(among, self._target[rows])
        return F.cross_entropy(scores.masked_fill(out[:, among], -1e9), at, reduction="none")


def _rows(whole: Prompted, rows: torch.Tensor) -> Prompted:
    return Prompted(whole.prompt[rows], whole.history[rows], whole.rows[rows])
