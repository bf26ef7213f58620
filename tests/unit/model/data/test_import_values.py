"""An import damages no value without a word: each kind of damage gives right data, a note or a refusal."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from model.data.columns import parse_columns
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.event_names import ALIASES, KNOWN_TYPES
from model.data.formats import Format, ImportRequest, ItemsFormat
from model.data.importing import import_dataset
from model.data.rules import Rules

NOW = 1_800_000_000_000
T = 1_700_000_000


def _import(
    folder: Path,
    log: str,
    columns: str = "",
    rules: Rules | None = None,
    form: Format = Format.CSV,
    *,
    items: str = "",
    users: str = "",
) -> Dataset:
    tables = {name: content for name, content in (("items", items), ("users", users)) if content}
    paths: dict[str, Path] = {}
    for name, content in {"log": log, **tables}.items():
        paths[name] = folder / (f"{name}.inter" if form is Format.RECBOLE else f"{name}.csv")
        paths[name].write_text(content)
    request = ImportRequest(
        str(paths["log"]),
        form,
        items=paths.get("items"),
        users=paths.get("users"),
        columns=parse_columns(columns),
        rules=rules or Rules(),
    )
    return import_dataset(request, now_ms=NOW)


def _refusal(
    folder: Path, log: str, columns: str = "", rules: Rules | None = None, items: str = "", users: str = ""
) -> DataError:
    with pytest.raises(DataError) as caught:
        _import(folder, log, columns, rules, items=items, users=users)
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def _notes(data: Dataset) -> str:
    return "\n".join(data.report["notes"])


def _log(column: str, values: list[str], more: int = 0) -> str:
    """A log with one event for each value of a column, and some events more with the value 1."""
    rows = [f'u{n % 7},i{n},"{value}"' for n, value in enumerate([*values, *["1"] * more])]
    return "\n".join([f"user_id,item_id,{column}", *rows, ""])


@pytest.mark.parametrize(
    "word", ["\\N", "NA", "<NA>", "undefined", "null", "None", "nan", "NaT", "#N/A", "(not set)", "none"]
)
def test_words_for_nothing_are_no_users_and_no_items(tmp_path: Path, word: str) -> None:
    data = _import(tmp_path, f"user_id,item_id\n{word},a\n{word},b\nu,{word}\nu,a\n")
    assert data.events.select("user_id", "item_id").rows() == [("u", "a")]
    assert data.report["dropped"] == {"no user id": 2, "no item id": 1}
    assert f"words in column 'user_id' that count as missing: {word!r} (2)" in _notes(data)


def test_words_for_nothing_are_no_features_but_a_region_may_be_called_na(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu,a\nv,a\n", users="user_id,region,plan\nu,NA,\\N\nv,EU,pro\n")
    assert data.users.rows() == [("u", "NA", None), ("v", "EU", "pro")]


def test_a_word_of_the_caller_stands_for_nothing_too(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\n0,a\nu,a\n", rules=Rules(null_words=frozenset({"0"})))
    assert data.events["user_id"].to_list() == ["u"]


def test_a_number_of_the_caller_stands_for_nothing_in_columns_of_numbers_and_lines_keep_theirs(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    columns = {"user_id": [0, 1, 2], "item_id": ["a", "b", "c"], "timestamp": [T, T, 0], "value": [0.0, 0.5, 2.0]}
    pl.DataFrame(columns).write_parquet(log)
    rules = Rules(null_words=frozenset({"0", "-1"}))
    data = import_dataset(ImportRequest(str(log), Format.PARQUET, rules=rules), now_ms=NOW)
    assert data.events.select("user_id", "value").rows() == [("1", 0.5)]
    assert "--null -1: no field holds it" in _notes(data)
    pl.DataFrame({**columns, "timestamp": [T, T, 5]}).write_parquet(log)
    with pytest.raises(DataError) as caught:
        rules = Rules(null_words=frozenset({"1", "2", "3"}))
        import_dataset(ImportRequest(str(log), Format.PARQUET, rules=rules), now_ms=NOW)
    assert "row 3, column timestamp" in (caught.value.where or "")
    assert "--null 5" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("values", "read", "note"),
    [
        (["4,5", "1.234,50", "1.234"], [4.5, 1234.5, 1234.0], "values read with a decimal comma"),
        (["1,234.5", "7"], [1234.5, 7.0], ""),
        (["36.19 EUR", "EUR 5", "7"], [36.19, 5.0, 7.0], "carry a currency, which was removed: EUR (2)"),
        (["1.299,00 €", "-5 €"], [1299.0, -5.0], "values read with a decimal comma"),
        (["1 234,5", "1'234,5"], [1234.5, 1234.5], "values read with a decimal comma"),
        (["$.5", "1e3"], [0.5, 1000.0], ""),
    ],
)
def test_numbers_are_read_as_they_are_written(tmp_path: Path, values: list[str], read: list[float], note: str) -> None:
    data = _import(tmp_path, _log("value", values))
    assert data.events.sort("item_id")["value"].to_list() == read
    assert note in _notes(data)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["4,5", "4.5"], "decimal commas (1) and decimal points (1)"),
        (["5 EUR", "5 EUR", "5 USD"], "in several currencies: EUR (2), USD (1)"),
        (["1,234", "2,345"], "may have a decimal comma or separated thousands"),
    ],
)
def test_numbers_that_may_be_two_are_refused(tmp_path: Path, values: list[str], what: str) -> None:
    error = _refusal(tmp_path, _log("value", values))
    assert what in error.what
    assert "column value" in (error.where or "")


def test_the_caller_names_the_decimal_sign_where_the_column_does_not_tell(tmp_path: Path) -> None:
    for sign, value in ((",", 1.234), (".", 1234.0)):
        data = _import(tmp_path, _log("value", ["1,234"]), rules=Rules(decimal=sign))
        assert data.events["value"].to_list() == [value]


def test_a_column_that_loses_more_than_a_twentieth_of_its_values_stops_the_import(tmp_path: Path) -> None:
    kept = _import(tmp_path, _log("value", ["good"], more=19))
    assert "1 values are not finite numbers and were left empty: 'good'" in _notes(kept)
    log = _log("paid", ["good"], more=18)
    error = _refusal(tmp_path, log, "value=paid")
    assert "column 'paid' would lose 1 of its 19 values, which are not finite numbers: 'good'" in error.what
    assert "log.csv, line 2, column paid" in (error.where or "")
    assert "--allow-loss paid" in (error.fix or "")
    allowed = _import(tmp_path, log, "value=paid", Rules(allow_loss=frozenset({"paid"})))
    assert allowed.events["value"].null_count() == 1


def test_prices_of_items_are_held_to_the_same(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "user_id,item_id\nu,a\n", items="item_id,price\na,on request\n")
    assert "column 'price' would lose 1 of its 1 values" in error.what


def test_event_types_of_other_programs_are_read_for_what_they_mean(tmp_path: Path) -> None:
    assert set(ALIASES.values()) <= KNOWN_TYPES
    assert not KNOWN_TYPES & ALIASES.keys()
    data = _import(tmp_path, _log("event_type", ["view_item", "Add to Cart", "purchase", "refund"]))
    assert sorted(data.events["event_type"]) == ["cart", "purchase", "refund", "view"]
    assert "'view_item' as view (1)" in _notes(data)
    assert "'add to cart' as cart (1)" in _notes(data)
    assert "'refund' (1); say what they mean with --type-map refund=view" in _notes(data)


def test_the_caller_says_what_event_types_mean(tmp_path: Path) -> None:
    rules = Rules(types={"Fav": "cart", "pv": "click", "gone": "view"})
    data = _import(tmp_path, _log("event_type", ["fav", "pv"]), rules=rules)
    assert sorted(data.events["event_type"]) == ["cart", "click"]
    assert "--type-map names types that the log does not have: gone" in _notes(data)


def test_returns_are_no_purchases(tmp_path: Path) -> None:
    rows = "u,a,purchase,5,2\nu,a,purchase,5,-2\nu,b,purchase,-5,1\nu,c,view,-1,1\n"
    log = f"user_id,item_id,event_type,value,Quantity\n{rows}"
    data = _import(tmp_path, log, "quantity=Quantity")
    assert data.events.select("item_id", "value").rows() == [("a", 5.0), ("c", -1.0)]
    assert data.report["dropped"] == {"returns (a negative quantity, or a purchase of a negative value)": 2}
    assert "1 events that are no purchases have a negative value" in _notes(data)


def test_an_id_with_a_quarter_of_the_log_is_named(tmp_path: Path) -> None:
    rows = "".join(f"0,i{n % 50},{T + n}\n" for n in range(100))
    rows += "".join(f"u{n % 50},i{n % 50},{T + n}\n" for n in range(250))
    notes = _notes(_import(tmp_path, f"user_id,item_id,timestamp\n{rows}"))
    assert "user '0' has 29% of the events (100)" in notes
    assert "leave it out with --null 0" in notes
    assert "item 'i" not in notes


@pytest.mark.parametrize(("table", "what"), [("users", "user"), ("items", "item")])
def test_a_table_of_nobody_in_the_log_stops_the_import(tmp_path: Path, table: str, what: str) -> None:
    other = f"{what}_id,title\nX1,a\n"
    log = "user_id,item_id\nu1,i1\n"
    error = _refusal(tmp_path, log, users=other) if table == "users" else _refusal(tmp_path, log, items=other)
    assert f"no {what} of the log is in the {what} table" in error.what
    assert "'X1'" in error.what
    assert f"--map {what}=" in (error.fix or "")


def test_whole_numbers_that_were_floats_are_the_ids_of_the_other_table(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\n1.0,10.0\n,20.0\n1.0,20\n", items="item_id,title\n10,Ten\n20,Twenty\n")
    assert data.events.select("user_id", "item_id").rows() == [("1", "10"), ("1", "20")]
    assert data.items["title"].to_list() == ["Ten", "Twenty"]
    assert "2 item ids end in '.0'" in _notes(data)


def test_ids_with_a_point_stay_where_others_are_no_numbers(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu,1.0\nu,1\nu,1.5\n")
    assert data.events["item_id"].to_list() == ["1.0", "1", "1.5"]
    assert "1 item ids are there with and without '.0'" in _notes(data)


@pytest.mark.parametrize(
    "places",
    [
        pytest.param(["3", "1", "2", "2", "1"], id="of each user"),
        pytest.param(["5", "1", "3", "2", "4"], id="of the log"),
        pytest.param(["2.0", "0.0", "1.0", "1.0", "0.0"], id="floats from 0"),
    ],
)
def test_counters_are_an_order_and_no_times(tmp_path: Path, places: list[str]) -> None:
    rows = list(zip("uuuvv", "bcade", places, strict=True))
    data = _import(tmp_path, "\n".join(["user_id,item_id,timestamp", *map(",".join, rows), ""]))
    assert not data.has_time
    assert data.events.select("user_id", "item_id").rows() == [
        (user, item) for user, item, _ in sorted(rows, key=lambda row: (row[0], float(row[2])))
    ]
    assert "column 'timestamp' counts the events" in _notes(data)


def test_numbers_that_are_neither_times_nor_counters_are_refused(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "user_id,item_id,timestamp\nu,a,5\nu,b,700\nv,a,12\n")
    assert "3 times are not an epoch" in error.what


@pytest.mark.parametrize(
    ("name", "category", "levels", "kind"),
    [
        ("category", "Home > Kitchen", ["Home", "Kitchen"], "path"),
        ("category", "Home &gt; Pots &amp; Pans", ["Home", "Pots & Pans"], "path"),
        ("category", "Home › Kitchen", ["Home", "Kitchen"], "path"),
        ("category", "Home / Kitchen", ["Home", "Kitchen"], "path"),
        ("category", "COOKIES/CONES", ["COOKIES/CONES"], "path"),
        ("category_path", "Home/Kitchen", ["Home", "Kitchen"], "path"),
        ("category", "Home > Pots|Home > Pans", ["Home", "Pots"], "path"),
        ("category", '["Home", "Kitchen"]', ["Home", "Kitchen"], "path"),
        ("categories", "['Home > Kitchen', 'Sale']", ["Home", "Kitchen"], "path"),
        ("genres", "Drama, Crime", ["Drama", "Crime"], "tags"),
        ("genres", "['Drama', 'Crime']", ["Drama", "Crime"], "tags"),
    ],
)
def test_categories_keep_their_levels(tmp_path: Path, name: str, category: str, levels: list[str], kind: str) -> None:
    field = category.replace('"', '""')
    data = _import(tmp_path, "user_id,item_id\nu,a\n", items=f'item_id,{name}\na,"{field}"\n')
    assert data.items["category"].to_list() == [levels]
    assert data.category_kind == kind


def test_a_feed_keeps_the_levels_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,a\n")
    (tmp_path / "feed.tsv").write_text("id\ttitle\tproduct_type\tgtin\na\tAy\tHome &gt; Kitchen\tx\n")
    request = ImportRequest(
        str(tmp_path / "log.csv"),
        Format.CSV,
        items=tmp_path / "feed.tsv",
        items_format=ItemsFormat.MERCHANT_FEED,
    )
    data = import_dataset(request, now_ms=NOW)
    assert data.items["category"].to_list() == [["Home", "Kitchen"]]
    assert "columns of feed.tsv that are not used: gtin" in _notes(data)


def test_a_path_goes_before_its_last_name(tmp_path: Path) -> None:
    items = "item_id,category,category_path\na,Kettles,Home > Kitchen > Kettles\n"
    data = _import(tmp_path, "user_id,item_id\nu,a\n", items=items)
    assert data.items["category"].to_list() == [["Home", "Kitchen", "Kettles"]]
    assert "columns of the item table that are not used: category" in _notes(data)


def test_columns_and_mappings_that_nothing_uses_are_said(tmp_path: Path) -> None:
    feed = "item_id,title,colour,gtin\na,Ay,red,x\n"
    data = _import(tmp_path, "user_id,item_id,page\nu,a,home\n", items=feed)
    assert "columns that are not used: page" in _notes(data)
    assert "columns of the item table that are not used: colour, gtin" in _notes(data)
    assert "the mapping of brand is not used: there is no --items" in _notes(
        _import(tmp_path, "user_id,item_id\nu,a\n", "brand=maker")
    )
    recbole = _import(tmp_path, "user_id:token\titem_id:token\tlabel:float\nu\ta\t1\n", form=Format.RECBOLE)
    assert "columns of log.inter that are not used: label" in _notes(recbole)


def test_flags_that_have_nothing_to_do_are_said(tmp_path: Path) -> None:
    rules = Rules(allow_loss=frozenset({"paid"}), types={"pv": "view"}, null_words=frozenset({"?"}))
    notes = _notes(_import(tmp_path, "user_id,item_id\nu,a\n", rules=rules))
    assert "--allow-loss paid: no column that is read has this name" in notes
    assert "--type-map is not used: the log has no event types" in notes
    assert "--null ?: no field holds it" in notes
    feed = ImportRequest(
        "l.csv", Format.CSV, items=Path("i"), items_columns={"title": "name"}, items_format=ItemsFormat.MERCHANT_FEED
    )
    assert feed.unused_roles() == {"title": "a merchant-feed has column names of its own"}


def test_features_that_pandas_made_floats_are_what_a_request_says(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu,a\nv,a\n", users="user_id,level\nu,3.0\nv,\n")
    assert data.users["level"].to_list() == ["3", None]
    assert "values of user column 'level' end in '.0'" in _notes(data)


def test_dates_that_stand_for_no_time_are_named(tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp\nu,a,{}\nu,b,2024-01-01 00:00:00\n"
    notes = _notes(_import(tmp_path, log.format("1970-01-01 00:00:00")))
    assert "1 events are dated 1970-01-01T00:00:00Z" in notes
    assert "--null '0000-00-00 00:00:00'" in (_refusal(tmp_path, log.format("0000-00-00 00:00:00")).fix or "")


def test_roles_of_a_log_without_named_columns_are_said() -> None:
    request = ImportRequest("office", Format.AMAZON_OFFICE, items=Path("i"), columns=parse_columns("time=ts,item=sku"))
    assert request.unused_roles() == {"time": "the log of amazon-office has no columns to name"}
