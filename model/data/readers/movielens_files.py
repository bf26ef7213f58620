"""The format `movielens`: the folders of MovieLens as GroupLens publishes them.

ml-1m and ml-10m have ratings.dat, movies.dat and maybe users.dat, with `::` between the fields and without a header;
ml-latest, ml-20m, ml-25m and ml-32m have ratings.csv and movies.csv.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.formats import TextOptions
from model.data.raw_dataset import RawDataset, SourceTable, split_tags
from model.data.readers.delimited import read_delimited
from model.data.readers.tables import beside, log_file, picked

_DAT = TextOptions(separator="::", header=False, quote="")
_RATINGS = {"user_id": ("userid", "1"), "item_id": ("movieid", "2"), "value": ("rating", "3")}
_TIMES = {"timestamp": ("timestamp", "4")}
_MOVIES = {"item_id": ("movieid", "1"), "title": ("title", "2"), "category": ("genres", "3")}
_USERS = {"user_id": ("1",), "gender": ("2",), "age": ("3",), "occupation": ("4",)}
_AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+"}


def read_movielens(source: Path) -> RawDataset:
    """Reads the ratings, and the movies and users that lie in the same folder.

    Args:
        source: The folder, or the file of ratings.

    Raises:
        DataError: A file cannot be read or lacks a column.
    """
    ratings = log_file(source, "ratings.dat", "ratings.csv")
    log = picked(_read(ratings), {**_RATINGS, **_TIMES}, ["user_id", "item_id", "value"])
    raw = RawDataset(ratings.absolute().parent.name, f"movielens:{ratings.name}", log, default_type="rating")
    if movies := beside(ratings.parent, "movies.dat", "movies.csv"):
        table = picked(_read(movies), _MOVIES, ["item_id"])
        if "category" in table.rows.columns:
            genres = split_tags(table.rows["category"], "|", drop=["(no genres listed)"])
            table = replace(table, rows=table.rows.with_columns(genres))
        raw.items = table
    if users := beside(ratings.parent, "users.dat"):
        table = picked(_read(users), _USERS, ["user_id"])
        raw.users = replace(
            table, rows=table.rows.with_columns(pl.col("age").replace(_AGES)).rename({"age": "age_group"})
        )
    return raw


def _read(path: Path) -> SourceTable:
    # GroupLens wrote movies.dat of ml-1m in Latin-1.
    return read_delimited(path, _DAT if ".dat" in path.suffixes else None, otherwise="latin-1")
