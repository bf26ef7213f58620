"""What the checks of an import refuse, drop and report, seen through a CSV log."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.assemble import assemble
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset
from model.data.items_users import MAX_FEATURE_VALUES
from model.data.raw_dataset import RawDataset, SourceTable, numbered

NOW = 1_800_000_000_000
T = 1_700_000_000


def _import(folder: Path, log: str, **files: str) -> Dataset:
    (folder / "log.csv").write_text(log)
    paths = {}
    for name, content in files.items():
        paths[name] = folder / f"{name}.csv"
        paths[name].write_text(content)
    request = ImportRequest(str(folder / "log.csv"), Format.CSV, items=paths.get("items"), users=paths.get("users"))
    return import_dataset(request, now_ms=NOW)


def _refusal(folder: Path, log: str, **files: str) -> DataError:
    with pytest.raises(DataError) as caught:
        _import(folder, log, **files)
    assert caught.value.fix
    return caught.value


def _notes(data: Dataset) -> str:
    return "\n".join(data.report["notes"])


def test_missing_columns_are_named_with_those_found_and_the_way_to_map_them(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "who,item_id,when\n1,2,3\n")
    assert "user (looked for 'user_id')" in error.what
    assert "columns found: who, item_id, when" in (error.where or "")
    assert "--map user=" in (error.fix or "")


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    data = _import(tmp_path, f"user_id,item_id,timestamp\nu,a,{T}\nu,a,{T}\nu,a,{T + 1}\nu,b,{T}\n")
    assert data.report["dropped"] == {"exact duplicates": 1}
    assert data.events["item_id"].to_list() == ["a", "b", "a"]


def test_repeats_are_events_where_there_are_no_times(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu,a\nu,a\nu,b\n")
    assert data.events["item_id"].to_list() == ["a", "a", "b"]
    assert not data.has_time
    assert data.events["timestamp"].null_count() == 3
    assert "no times" in _notes(data)


def test_rows_without_ids_or_times_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp\n,a,{T}\nNaN,a,{T}\nu,,{T}\nu,null,{T}\nu,nan,{T}\nu,a,\nu,b,{T}\n"
    data = _import(tmp_path, log)
    assert data.report["dropped"] == {"no user id": 2, "no item id": 3, "no time": 1}
    assert data.report["events"] == 1


def test_searches_that_name_no_item_are_counted_apart(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp,event_type\nu,,{T},search\nu,a,{T},search\nu,,{T},view\n"
    assert _import(tmp_path, log).report["dropped"] == {"no item id": 1, "searches that name no item": 1}


def test_a_log_of_which_nothing_is_left_is_refused_with_the_reasons(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "user_id,item_id\n,a\nu,\n")
    assert "no user id: 1, no item id: 1" in (error.where or "")


@pytest.mark.parametrize("log", ["", "user_id,item_id\n", "   \n"])
def test_an_empty_log_is_refused(tmp_path: Path, log: str) -> None:
    _refusal(tmp_path, log)


def test_control_characters_in_ids_are_refused_by_line(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "user_id,item_id\nu,a\nu,b\x07\nu\x85,c\n")
    assert "user ids hold control characters: 'u\\x85'" in error.what
    assert "line 4" in (error.where or "")
    error = _refusal(tmp_path, "user_id,item_id\nu,a\nu,b\x07\n")
    assert "item ids hold control characters: 'b\\x07'" in error.what
    assert "line 3" in (error.where or "")


def test_ids_of_128_characters_are_kept_and_longer_ones_refused(tmp_path: Path) -> None:
    assert _import(tmp_path, f"user_id,item_id\nu,{'ü' * 128}\n").report["events"] == 1
    error = _refusal(tmp_path, f"user_id,item_id\nu,{'ü' * 129}\n")
    assert "longer than 128" in error.what
    assert "line 2" in (error.where or "")


def test_ids_with_blanks_around_them_are_kept_and_reported(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu, a\nu,a\n")
    assert data.events["item_id"].to_list() == [" a", "a"]
    assert "1 values of item_id begin or end with a blank" in _notes(data)


def test_unordered_rows_are_sorted_and_reported(tmp_path: Path) -> None:
    data = _import(tmp_path, f"user_id,item_id,timestamp\nu,b,{T + 9}\nv,c,{T}\nu,a,{T}\n")
    assert data.events["item_id"].to_list() == ["a", "b", "c"]
    assert "1 rows came after a later event of the same user" in _notes(data)


def test_ties_keep_the_order_of_the_source(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 3},i{97 - n},{T}\n" for n in range(60))
    data = _import(tmp_path, "user_id,item_id,timestamp\n" + rows)
    expected = [f"i{97 - n}" for u in range(3) for n in range(60) if n % 3 == u]
    assert data.events["item_id"].to_list() == expected
    assert data.users["user_id"].to_list() == ["u0", "u1", "u2"]


def test_event_types_are_lower_case_and_unknown_ones_kept_and_reported(tmp_path: Path) -> None:
    log = "user_id,item_id,event_type\nu,a,VIEW\nu,b,wishlist\nu,c,\nu,d,impression\nu,e, wishlist \n"
    data = _import(tmp_path, log)
    assert data.events["event_type"].to_list() == ["view", "wishlist", "view", "impression", "wishlist"]
    assert "1 unknown event types, kept and read as 'other': 'wishlist' (2)" in _notes(data)
    assert "1 events without a type are taken as 'view'" in _notes(data)


def test_a_few_values_that_are_no_number_are_left_empty_and_named(tmp_path: Path) -> None:
    rows = "".join(f"u,i{n},{n}.5\n" for n in range(38))
    data = _import(tmp_path, f"user_id,item_id,value\n{rows}u,b,good\nu,c,inf\nu,d,\n")
    assert data.events["value"].to_list()[-4:] == [37.5, None, None, None]
    assert "2 values are not finite numbers and were left empty: 'good', 'inf'" in _notes(data)


def test_items_the_item_table_lacks_are_kept_and_reported(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu,a\nu,new\nv,new\n", items="item_id,title\nb,Bee\na,Ay\n")
    assert data.items.select("item_id", "title").rows() == [("b", "Bee"), ("a", "Ay"), ("new", None)]
    assert "1 items of the log (2 events) are not in the item table" in _notes(data)
    assert "1 items of the item table have no event" in _notes(data)


def test_repeated_items_and_items_without_an_id_are_dropped_and_counted(tmp_path: Path) -> None:
    data = _import(tmp_path, "user_id,item_id\nu,a\n", items="item_id,title\na,First\na,Second\n,None\n")
    assert data.items["title"].to_list() == ["First"]
    assert data.report["dropped"] == {
        "item rows without an id": 1,
        "repeated item rows (the first is kept)": 1,
    }


def test_users_without_events_are_dropped_and_users_without_features_kept(tmp_path: Path) -> None:
    data = _import(
        tmp_path,
        "user_id,item_id\nv,a\nu,a\n",
        users="user_id,gender\nu,F\nidle,M\n",
    )
    assert data.users.rows() == [("v", None), ("u", "F")]
    assert data.report["dropped"] == {"users of the user table without any event": 1}
    assert "1 users of the log are not in the user table" in _notes(data)


def test_a_user_column_with_too_many_values_is_no_feature(tmp_path: Path) -> None:
    count = MAX_FEATURE_VALUES + 1
    log = "user_id,item_id\n" + "".join(f"u{n},a\n" for n in range(count))
    users = "user_id,zip,gender\n" + "".join(f"u{n},{n}, {'FM'[n % 2]} \n" for n in range(count))
    data = _import(tmp_path, log, users=users)
    assert data.users.columns == ["user_id", "gender"]
    assert set(data.users["gender"]) == {"F", "M"}
    assert f"user column 'zip' has {count} values" in _notes(data)


def test_the_report_counts_what_is_there(tmp_path: Path) -> None:
    data = _import(
        tmp_path,
        f"user_id,item_id,timestamp\nu,a,{T}\nu,b,{T + 1}\nu,a,{T + 2}\nv,a,{T + 3}\n",
        items="item_id\na\nb\nc\n",
    )
    report = data.report
    assert (report["users"], report["items"], report["items_with_events"], report["events"]) == (2, 3, 2, 4)
    assert report["events_per_user"] == {"min": 1, "median": 2.0, "max": 3}
    assert report["density"] == pytest.approx(3 / 6)
    assert (report["first_event"], report["last_event"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:13:23Z")
    assert report["event_types"] == {"view": 4}


def _table(columns: dict[str, pl.Series]) -> RawDataset:
    return RawDataset("t", "t", SourceTable(numbered(pl.DataFrame(columns), first=1), "log.parquet", "row"))


def test_whole_ids_stored_as_floats_are_whole_again() -> None:
    ids = pl.Series([12.0, None, float("nan"), 7.0])
    data = assemble(_table({"user_id": pl.Series(["u"] * 4), "item_id": ids}), NOW)
    assert data.events["item_id"].to_list() == ["12", "7"]
    assert data.report["dropped"] == {"no item id": 2}


@pytest.mark.parametrize(
    ("ids", "what"),
    [
        pytest.param(pl.Series([1.0, 2.5]), "not whole numbers: 2.5", id="ids0-no whole numbers: 2.5"),
        pytest.param(pl.Series([1.0, float("inf")]), "not whole numbers: inf", id="ids1-no whole numbers: inf"),
        (pl.Series([1.0, 2.0**54]), "stored as floats and lost digits: 1.80"),
        (pl.Series([["a"], ["b"]]), "cannot be used"),
    ],
)
def test_ids_that_are_no_ids_are_refused(ids: pl.Series, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        assemble(_table({"user_id": pl.Series(["u", "u"]), "item_id": ids}), NOW)
    assert "log.parquet" in (caught.value.where or "")


rows = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(T, T + 5)), min_size=1, max_size=30
)


@settings(deadline=None)
@given(rows)
def test_whatever_the_log_users_are_grouped_and_times_ascend(told: list[tuple[str, str, int]]) -> None:
    frame = pl.DataFrame(told, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = assemble(RawDataset("t", "t", SourceTable(numbered(frame), "log.csv")), NOW)
    events = data.events
    assert sorted(events.select("user_id", "item_id", pl.col("timestamp") // 1000).rows()) == sorted(set(told))
    assert events["user_id"].rle().len() == events["user_id"].n_unique()
    for _, group in events.group_by("user_id"):
        assert group["timestamp"].is_sorted()
    firsts = list(dict.fromkeys(user for user, _, _ in told))
    assert data.users["user_id"].to_list() == firsts
    assert events["user_id"].unique(maintain_order=True).to_list() == firsts


@settings(deadline=None)
@given(rows)
def test_importing_twice_gives_the_same_fingerprint(told: list[tuple[str, str, int]]) -> None:
    frame = pl.DataFrame(told, schema=["user_id", "item_id", "timestamp"], orient="row")
    marks = {assemble(RawDataset("t", "t", SourceTable(numbered(frame), "log.csv")), NOW).fingerprint for _ in range(2)}
    assert len(marks) == 1
