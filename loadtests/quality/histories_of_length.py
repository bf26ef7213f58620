"""Histories of one length: everybody's newest events, and the questions of those who have so many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import typer

from model.data.dataset import Dataset
from model.data.split import Split


def cut_to(dataset: Dataset, length: int) -> Dataset:
    """Returns the newest `length` + 1 events of every user: that many before the event to be found."""
    newest = dataset.events.group_by("user_id", maintain_order=True).tail(length + 1)
    return Dataset.of(
        f"{dataset.name} cut to {length}", newest, dataset.items, dataset.users,
        has_time=dataset.has_time, category_kind=dataset.category_kind, source=dataset.source,
    )  # fmt: skip


def with_so_many(whole: Split, cut: Split, length: int) -> Split:
    """Returns the split of a cut log with the test questions of the users who have `length` events before theirs.

    The histories are those of the whole log, so that no list has an item that the user had before the cut.

    Args:
        whole: The split of the whole log.
        cut: The split of the same log, whose histories are cut.
        length: Events of a history.

    Raises:
        typer.BadParameter: Nobody has so many events, or the logs have other items.
    """
    if whole.sequences.item_ids != cut.sequences.item_ids:
        raise typer.BadParameter("the item table lacks items of the log, so that a cut changes its catalogue")
    before = whole.test.history_end - whole.sequences.offsets[whole.test.users]
    asked = np.flatnonzero(before >= length)
    if not len(asked):
        raise typer.BadParameter(f"nobody has {length:,} events; the longest history has {int(before.max()):,}")
    return replace(cut, sequences=whole.sequences, test=whole.test.rows(asked))
