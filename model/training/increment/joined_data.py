"""Old and new events as one data set, with the items in the order of the run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.together import together
from model.errors import RunError
from model.training.run_folder import Run

DATA = "data"
# Most of the run's items that the data may lack before its ids count as others.
MISSING_MOST = 0.5


@dataclass(frozen=True)
class Joined:
    """The data of an increment.

    Attributes:
        dataset: Old and new events; the items of the run come first.
        path: Where it lies, or will lie.
        written: Whether it lies there already.
        notes: What a reader of the output should know.
    """

    dataset: Dataset
    path: Path
    written: bool
    notes: tuple[str, ...]

    def save(self) -> None:
        """Writes the data set, if it does not lie there yet."""
        if not self.written and self.path.exists():
            with contextlib.suppress(DataError):
                if Dataset.load(self.path).fingerprint == self.dataset.fingerprint:
                    return
        if not self.written:
            self.dataset.save(self.path)


def joined(run: Run, item_ids: list[str], new: Path, old: Path | None, out: Path) -> Joined:
    """Reads the data of an increment.

    Args:
        run: The run that is gone on from.
        item_ids: Its items, in index order.
        new: Data set with old and new events, or with the new ones alone where `old` is given.
        old: Data set that the run was trained on.
        out: Folder of the increment; a data set that lies nowhere yet is written there.

    Raises:
        DataError: A data set cannot be read.
        RunError: The data sets do not fit the run or each other.
    """
    dataset, notes = Dataset.load(new), []
    _check_kind(dataset, run, new)
    path, written = new, True
    if old is not None:
        before = run.dataset(old)
        _check_alike(before, dataset, new)
        dataset, path, written = together(before, dataset), out / DATA, False
    missing = _missing(dataset, item_ids)
    if len(missing) > MISSING_MOST * len(item_ids):
        raise RunError(
            f"the data lacks {len(missing):,} of the {len(item_ids):,} items of the run ({', '.join(missing[:3])}, …): "
            "its ids are others, or it holds only new events",
            where=f"{new}, for the run {run.folder}",
            fix="give the data of the run as well, with --old, or train anew without --init",
        )
    if missing:
        notes.append(
            f"{len(missing):,} items of the run are not in the data; they stay in the catalogue without a title"
        )
    ordered = _in_order(dataset, item_ids)
    if ordered is not dataset:
        dataset, path, written = ordered, out / DATA, False
    return Joined(dataset, path, written, tuple(notes))


def _check_kind(dataset: Dataset, run: Run, where: Path) -> None:
    if not dataset.has_time or not run.network.has_time:
        raise RunError(
            "an increment needs times to tell new events from old ones, and "
            + ("the data set has none" if run.network.has_time else "the run was trained without"),
            where=str(where),
            fix="train anew without --init",
        )


def _check_alike(old: Dataset, new: Dataset, where: Path) -> None:
    if old.category_kind != new.category_kind:
        raise RunError(
            f"the categories of the old data are a {old.category_kind}, those of the new data {new.category_kind}",
            where=str(where),
            fix="import the new data like the old",
        )
    if not set(old.items["item_id"]) & set(new.items["item_id"]):
        raise RunError(
            "the two data sets have no item in common: their ids are others",
            where=str(where),
            fix="import both with the same ids",
        )


def _missing(dataset: Dataset, item_ids: list[str]) -> list[str]:
    there = set(dataset.items["item_id"]) | set(dataset.events["item_id"].drop_nulls())
    return [item for item in item_ids if item not in there]


def _in_order(dataset: Dataset, item_ids: list[str]) -> Dataset:
    """Returns the data set with the items of the run first, in their order; itself if they are already."""
    listed = dataset.items["item_id"].to_list()
    if listed[: len(item_ids)] == item_ids:
        return dataset
    known = set(item_ids)
    ids = pl.DataFrame({"item_id": [*item_ids, *(item for item in listed if item not in known)]})
    items = ids.join(dataset.items, on="item_id", how="left", maintain_order="left").select(dataset.items.columns)
    return Dataset.of(
        dataset.name, dataset.events, items, dataset.users, has_time=dataset.has_time,
        category_kind=dataset.category_kind, report=dataset.report, source=dataset.source, vectors=dataset.vectors,
        searches=dataset.searches,
    )  # fmt: skip
