"""Data sets and exports whose publishers fixed the names of the columns."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest, ItemsFormat
from model.data.importing import import_dataset
from model.data.rules import Rules

NOW = 1_800_000_000_000


def _import(folder: Path, files: dict[str, str | bytes], form: Format, name: str = "", **options: Any) -> Dataset:
    for file, content in files.items():
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return import_dataset(ImportRequest(str(folder / name), form, **options), now_ms=NOW)


def _item(data: Dataset, item: str) -> dict[str, Any]:
    return next(row for row in data.items.iter_rows(named=True) if row["item_id"] == item)


def test_movielens_1m_and_its_latin_1(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "ratings.dat": "1::2::5::978300760\n2::3::3::978302109\n",
        "movies.dat": "2::Misérables, Les (1995)::Drama|Musical\n3::A: B (1999)::Comedy\n".encode("latin-1"),
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    }
    data = _import(tmp_path, files, Format.MOVIELENS)
    assert data.events.select("user_id", "item_id", "event_type", "value").rows()[0] == ("1", "2", "rating", 5.0)
    assert _item(data, "2")["title"] == "Misérables, Les (1995)"
    assert _item(data, "2")["category"] == ["Drama", "Musical"]
    assert data.users["age_group"].to_list() == ["under 18", "56+"]
    assert _import(tmp_path, {}, Format.MOVIELENS, "ratings.dat").fingerprint == data.fingerprint


def test_movielens_latest(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
        "movies.csv": 'movieId,title,genres\n31,"Dangerous Minds, 2 (1995)",(no genres listed)\n',
    }
    data = _import(tmp_path, files, Format.MOVIELENS)
    assert _item(data, "31")["title"] == "Dangerous Minds, 2 (1995)"
    assert _item(data, "31")["category"] == []
    assert set(data.events["event_type"]) == {"rating"}


def test_retailrocket_takes_the_newest_category_with_those_above_it(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,7,view,3,\n"
        "1433221332118,7,addtocart,3,\n1433221332119,7,transaction,3,4000\n",
        "item_properties_part1.csv": "timestamp,itemid,property,value\n1439089200000,3,categoryid,12\n",
        "item_properties_part2.csv": "timestamp,itemid,property,value\n1435460400000,3,categoryid,9\n2,3,888,n1\n",
        "category_tree.csv": "categoryid,parentid\n12,5\n5,1\n1,\n",
    }
    data = _import(tmp_path, files, Format.RETAILROCKET)
    assert data.events["event_type"].to_list() == ["view", "cart", "purchase"]
    assert _item(data, "3")["category"] == ["1", "5", "12"]
    assert data.category_kind == "path"


def test_taobao_has_no_header_and_brings_categories(tmp_path: Path) -> None:
    rows = "1,22,9,pv,1511544070\n1,23,9,fav,1511561733\n2,22,9,buy,1511572885\n"
    data = _import(tmp_path, {"UserBehavior.csv": rows}, Format.TAOBAO)
    assert data.report["event_types"] == {"view": 1, "click": 1, "purchase": 1}
    assert _item(data, "22")["category"] == ["9"]


def test_gorse_feedback_with_its_items_and_users(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "feedback.csv": "FeedbackType,UserId,ItemId,Timestamp\nread,u,a,2025-03-01 09:12:44 +0000 UTC\n"
        "share,u,a,2025-03-01 09:12:45 +0000 UTC\n",
        "items.csv": "item_id,is_hidden,categories,time_stamp,labels,comment\na,false,x|y,2025,l1|l2,Tea\n",
        "users.csv": "user_id,labels\nu,gold\n",
    }
    data = _import(tmp_path, files, Format.GORSE, rules=Rules(types={"share": "other"}))
    assert data.events["event_type"].to_list() == ["view", "other"]
    assert (_item(data, "a")["title"], _item(data, "a")["attributes"]) == ("Tea", ["l1", "l2"])
    assert data.users["labels"].to_list() == ["gold"]


GA4: list[dict[str, Any]] = [
    {"event_timestamp": "1740820364000000", "event_name": "session_start", "user_pseudo_id": "7", "items": []},
    {
        "event_timestamp": "1740820365000000", "event_name": "add_to_cart", "user_pseudo_id": "7", "user_id": "ada",
        "event_params": [
            {"key": "page", "value": {"string_value": "x"}},
            {"key": "ga_session_id", "value": {"int_value": 41}},
        ],
        "items": [
            {"item_id": "a", "item_name": "Tea", "item_category": "Food", "item_category2": "Drinks", "price": 2.5,
             "quantity": 2},
            {"item_id": "b", "item_name": "Pot", "price": 9},
        ],
    },
]  # fmt: skip


@pytest.mark.parametrize("parquet", [False, True])
def test_ga4_events_become_one_event_for_each_item(tmp_path: Path, parquet: bool) -> None:
    lines = "".join(json.dumps(event) + "\n" for event in GA4).encode()
    if parquet:
        packed = io.BytesIO()
        pl.read_ndjson(lines).write_parquet(packed)
        lines = packed.getvalue()
    data = _import(tmp_path, {"events.parquet" if parquet else "events.json": lines}, Format.GA4)
    rows = data.events.select("user_id", "item_id", "event_type", "value", "session_id").rows()
    assert rows == [("ada", "a", "cart", 5.0, "41"), ("ada", "b", "cart", 9.0, "41")]
    assert (_item(data, "a")["title"], _item(data, "a")["category"]) == ("Tea", ["Food", "Drinks"])
    assert data.report["dropped"] == {"events that name no item": 1}


def test_ga4_without_repeated_items_is_refused(tmp_path: Path) -> None:
    flat = json.dumps({key: value for key, value in GA4[1].items() if key != "items"} | {"items": "a"})
    with pytest.raises(DataError, match="does not list objects"):
        _import(tmp_path, {"events.json": flat}, Format.GA4)


ORDERS = (
    "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Cancelled at\n"
    "#1,ada@x.org,paid,2025-03-01 10:12:44 +0100,2,Tea,6.80,a,\n#1,,,,1,Pot - steel,24.90,,\n"
    "#2,bo@x.org,refunded,2025-03-01 10:12:44 +0100,1,Tea,6.80,a,\n"
    "#3,bo@x.org,paid,2025-03-02 10:12:44 +0100,1,Tea,6.80,a,2025-03-03 08:00:00 +0100\n"
)
PRODUCTS = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Variant SKU,Variant Price\n"
    'tea,Green tea,<p>Fresh <b>leaves</b></p>,Leaf,Tea,"organic, green",a,6.80\ntea,,,,,,b,12.00\ntea,,,,,,,\n'
)


def test_shopify_orders_are_purchases_and_products_are_items(tmp_path: Path) -> None:
    data = _import(tmp_path, {"orders.csv": ORDERS, "products.csv": PRODUCTS}, Format.SHOPIFY)
    rows = data.events.select("user_id", "item_id", "value", "session_id").rows()
    assert rows == [("ada@x.org", "a", 13.6, "#1"), ("ada@x.org", "Pot - steel", 24.9, "#1")]
    assert data.report["first_event"] == "2025-03-01T09:12:44Z"
    assert data.report["dropped"] == {"lines of orders that were cancelled or refunded": 2}
    tea = _item(data, "b")
    assert (tea["title"], tea["text"], tea["price"]) == ("Green tea", "Fresh leaves", 12.0)
    assert (tea["category"], tea["attributes"]) == (["Tea"], ["organic", "green"])
    alone = _import(tmp_path, {}, Format.SHOPIFY, "orders.csv", items=tmp_path / "products.csv",
                    items_format=ItemsFormat.SHOPIFY)  # fmt: skip
    assert alone.fingerprint == data.fingerprint


FEED = "id\ttitle\tg:product type\tprice\tcolor\na\tTea\tFood > Drinks\t1,036.19 EUR\tgreen\nb\tPot\t\tEUR 5\t\n"
RSS = (
    '<rss xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>'
    "<item><g:id>a</g:id><title>Tea</title><g:product_type>Food &gt; Drinks</g:product_type>"
    "<g:price>1036.19 EUR</g:price><g:color>green</g:color></item></channel></rss>"
)


@pytest.mark.parametrize(("name", "feed"), [("feed.tsv", FEED), ("feed.xml", RSS)])
def test_a_merchant_feed_is_a_table_of_items(tmp_path: Path, name: str, feed: str) -> None:
    files: dict[str, str | bytes] = {"log.csv": "user_id,item_id\nu,a\n", name: feed}
    options = {"items": tmp_path / name, "items_format": ItemsFormat.MERCHANT_FEED}
    data = _import(tmp_path, files, Format.CSV, "log.csv", **options)
    tea = _item(data, "a")
    assert (tea["title"], tea["price"]) == ("Tea", 1036.19)
    assert (tea["category"], tea["attributes"]) == (["Food", "Drinks"], ["color green"])
    if name.endswith(".xml"):
        for broken, what in (("<rss>", "not valid XML"), ("<rss/>", "no product")):
            with pytest.raises(DataError, match=what):
                _import(tmp_path, {name: broken}, Format.CSV, "log.csv", **options)


@pytest.mark.parametrize("form", [Format.MOVIELENS, Format.GORSE, Format.RETAILROCKET])
def test_a_folder_without_its_log_is_refused(tmp_path: Path, form: Format) -> None:
    with pytest.raises(DataError, match="the folder lacks"):
        _import(tmp_path, {"other.csv": "a\n1\n"}, form)
