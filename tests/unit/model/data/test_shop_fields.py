"""What a table of items says for the shop alone: it reaches the catalogue, and stops no import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from export.from_run import catalogue_of
from model.data.dataset import ITEM_SCHEMA, Dataset
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset
from model.data.shop_fields import SHOP_SCHEMA
from model.data.together import together, with_items
from service.artifact.items.catalogue_item import CatalogueItem

NOW = 1_800_000_000_000
LOG = "user_id,item_id,timestamp\nu,a,1700000000\nu,b,1700000001\nv,a,1700000002\n"
ITEMS = """item_id,title,category,price,currency,stock,image,url,valid_from,valid_until
a,Boot,Fashion > Women > Shoes,49.9,eur,3,https://cdn/a.jpg,/p/a,2026-01-01T00:00:00Z,
b,Hat,Fashion > Hats,10,,0,,,,2099-01-01T00:00:00Z
c,Sock,,,CHF,,,,,
"""


def imported(folder: Path, items: str | dict[str, Any], name: str = "items.csv") -> Dataset:
    (folder / "log.csv").write_text(LOG)
    path = folder / name
    if isinstance(items, str):
        path.write_text(items)
    else:
        path = path.with_suffix(".parquet")
        pl.DataFrame(items).write_parquet(path)
    return import_dataset(ImportRequest(str(folder / "log.csv"), Format.CSV, items=path), now_ms=NOW)


def test_the_fields_of_the_shop_reach_the_catalogue(tmp_path: Path) -> None:
    imported(tmp_path, ITEMS).save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    catalogue = catalogue_of(data, ["b", "a", "c", "stranger"])
    assert list(catalogue.items) == [
        CatalogueItem(
            "b", "Hat", ("Fashion", "Hats"), paths=("Fashion > Hats",), price=10.0, stock=0,
            valid_until_ms=4_070_908_800_000,
        ),
        CatalogueItem(
            "a", "Boot", ("Fashion", "Women", "Shoes"), paths=("Fashion > Women > Shoes",), price=49.9, currency="EUR",
            stock=3, image="https://cdn/a.jpg", url="/p/a", valid_from_ms=1_767_225_600_000,
        ),
        CatalogueItem("c", "Sock", currency="CHF"),
        CatalogueItem("stranger"),
    ]  # fmt: skip


def test_a_table_without_them_has_no_column_of_them(tmp_path: Path) -> None:
    plain = imported(tmp_path, "item_id,title,stock\na,Boot,\n")
    assert plain.items.columns == [*ITEM_SCHEMA]
    assert list(catalogue_of(plain, ["a"]).items) == [CatalogueItem("a", "Boot")]


def test_tags_of_a_table_are_no_path(tmp_path: Path) -> None:
    data = imported(tmp_path, "item_id,genres\na,War|Drama\nb,Comedy\n")
    assert catalogue_of(data, ["a"]).item(0) == CatalogueItem("a", None, ("War", "Drama"))


@pytest.mark.parametrize(
    ("name", "values", "read", "said"),
    [
        ("stock", ["3", "many", "-1"], None, "would lose 1 of its 3 values"),
        ("stock", [1.5, 2.0, None], [None, 2, None], "1 values of stock are not whole numbers from 0"),
        ("currency", ["EUR", "Euro", "usd"], ["EUR", None, "USD"], "1 values of currency are not three letters"),
        ("url", ["/a", "javascript:alert(1)", "HTTPS://x"], ["/a", None, None], "2 values of url are not addresses"),
        ("image", [["/a"], None, None], None, "column 'image' of the item table is left out: values of type List"),
        ("valid_until", ["soon", None, None], None, "column 'valid_until' of the item table is left out"),
        (
            "valid_from",
            [-5_000_000_000, 1_700_000_000, None],
            None,
            "column 'valid_from' of the item table is left out",
        ),
    ],
)
def test_what_cannot_be_read_is_left_empty_and_noted(
    tmp_path: Path, name: str, values: list[Any], read: list[Any] | None, said: str
) -> None:
    data = imported(tmp_path, {"item_id": ["a", "b", "c"], name: values})
    assert (data.items[name].to_list() if name in data.items.columns else None) == read
    assert any(said in note for note in data.report["notes"]), data.report["notes"]


def test_they_survive_other_tables_and_increments(tmp_path: Path) -> None:
    bare, told = imported(tmp_path, "item_id,title\na,Boot\n", "bare.csv"), imported(tmp_path, ITEMS)
    for both in (together(bare, told), together(told, bare), with_items(bare, tmp_path / "items.csv")):
        assert set(both.items.columns) == {*ITEM_SCHEMA, *SHOP_SCHEMA}
        rows = {row["item_id"]: row for row in both.items.iter_rows(named=True)}
        assert (rows["a"]["stock"], rows["b"]["stock"], rows["a"]["currency"]) == (3, 0, "EUR")
