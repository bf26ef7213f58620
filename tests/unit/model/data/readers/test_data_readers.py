from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.data.columns import parse_columns
from model.data.dataset import Dataset, sequences
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset

NOW = 1_800_000_000_000
T = 1_700_000_000
INTER = (
    f"user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ta\t4\t{T + 5}\nu2\tb\t3.5\t{T}\nu1\tb\t1\t{T}\n"
)
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    'a\tToy "Story\t1995\tAnimation Comedy\nb\tUnreleased\tV\tunknown\n'
)
USER = "user_id:token\tage:token\tgender:token\tzip_code:token\nu1\t24\tM\t85711\nu2\t17\tF\t1\nu3\t56\tF\t2\n"


def _import(source: Path | str, form: Format, **options: Any) -> Dataset:
    return import_dataset(ImportRequest(str(source), form, **options), now_ms=NOW)


def _refusal(source: Path | str, form: Format, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        _import(source, form, **options)
    assert caught.value.fix
    return caught.value


def _file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _events(data: Dataset) -> list[tuple[str, str]]:
    return data.events.select("user_id", "item_id").rows()


@pytest.fixture
def recbole(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for ending, content in (("inter", INTER), ("item", ITEM), ("user", USER)):
        _file(folder / f"tiny.{ending}", content)
    return folder


@pytest.mark.parametrize("name", ["", "tiny.inter"])
def test_recbole_reads_a_folder_or_its_inter_file(recbole: Path, name: str) -> None:
    data = _import(recbole / name, Format.RECBOLE)
    assert data.name == "tiny"
    assert _events(data) == [("u1", "b"), ("u1", "a"), ("u2", "b")]
    assert data.events["value"].to_list() == [1.0, 4.0, 3.5]
    assert set(data.events["event_type"]) == {"rating"}
    assert data.items["title"].to_list() == ['Toy "Story (1995)', "Unreleased"]
    assert data.items["category"].to_list() == [["Animation", "Comedy"], []]
    assert data.category_kind == "tags"
    assert data.users["age_group"].to_list() == ["18-24", "under 18"]
    assert data.report["dropped"] == {"users of the user table without any event": 1}


def test_recbole_columns_can_be_named(tmp_path: Path) -> None:
    log = _file(tmp_path / "x.inter", f"who:token\tsku:token\tat:float\nu\ta\t{T}\n")
    data = _import(log, Format.RECBOLE, columns=parse_columns("user=who,item=sku,time=at"))
    assert _events(data) == [("u", "a")]
    assert data.has_time
    assert set(data.events["event_type"]) == {"view"}


def test_recbole_without_times_or_item_files_is_fine(tmp_path: Path) -> None:
    log = _file(tmp_path / "x.inter", "user_id:token\titem_id:token\nu\ta\n")
    data = _import(log, Format.RECBOLE)
    assert not data.has_time
    assert data.items["item_id"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.inter", "user_id\titem_id\nu\ta\n", "without a type: user_id, item_id"),
        ("x.inter", "user:token\titem_id:token\nu\ta\n", "columns are missing: user"),
        ("x.inter", "user_id:token\titem_id_list:token_seq\nu\ta b\n", "whole histories"),
        pytest.param(
            "x.inter",
            "user_id:token\titem_id:token\nu\ta\textra\n",
            "3 fields, but the header has 2",
            id="x.inter-user_id:token\titem_id:token\nu\ta\textra\n-3 fields, the header 2",
        ),
        ("x.inter", "user_id:token\titem_id:token\n", "no row"),
        ("x.txt", "user_id:token\titem_id:token\nu\ta\n", "a folder or its .inter file"),
    ],
)
def test_a_log_that_is_not_recbole_is_refused(tmp_path: Path, name: str, content: str, what: str) -> None:
    assert what in _refusal(_file(tmp_path / name, content), Format.RECBOLE).what


def test_a_recbole_item_file_in_latin_1_names_line_and_encoding(recbole: Path) -> None:
    _file(recbole / "tiny.item", ITEM.replace("Unreleased", "Misérables").encode("latin-1"))
    error = _refusal(recbole, Format.RECBOLE)
    assert "line 3" in (error.where or "")
    assert "iconv" in (error.fix or "")


def test_a_folder_with_none_or_several_logs_is_refused(recbole: Path, tmp_path: Path) -> None:
    _file(recbole / "second.inter", INTER)
    assert "2 .inter files" in _refusal(recbole, Format.RECBOLE).what
    (tmp_path / "empty").mkdir()
    assert "0 .inter files" in _refusal(tmp_path / "empty", Format.RECBOLE).what


SEQUENCES = "u1 c a a b\nu2 b\n\nu3\n"
TIMES = f"user_id,item_id,pos,timestamp\nu1,c,0,{T}\nu1,a,1,{T}\nu1,a,2,{T}\nu1,b,3,{T + 9}\nu2,b,0,{T}\n"


def test_sequences_keep_the_order_and_the_repeats_of_the_lines(tmp_path: Path) -> None:
    data = _import(_file(tmp_path / "s.txt", SEQUENCES), Format.SEQUENCES)
    assert _events(data) == [("u1", "c"), ("u1", "a"), ("u1", "a"), ("u1", "b"), ("u2", "b")]
    assert not data.has_time
    assert data.report["dropped"] == {"blank lines": 1, "users without any item": 1}


def test_sequences_take_times_and_attributes_and_keep_the_order_of_ties(tmp_path: Path) -> None:
    data = _import(
        _file(tmp_path / "s.txt.gz", gzip.compress(SEQUENCES.encode())),
        Format.SEQUENCES,
        times=_file(tmp_path / "t.csv.gz", gzip.compress(TIMES.encode())),
        attributes=_file(tmp_path / "a.json", json.dumps({"b": [7, "x"], "cold": []})),
    )
    assert data.name == "s"
    assert _events(data) == [("u1", "c"), ("u1", "a"), ("u1", "a"), ("u1", "b"), ("u2", "b")]
    assert sequences(data).time_ms.tolist() == [T * 1000] * 3 + [(T + 9) * 1000, T * 1000]
    rows = dict(data.items.select("item_id", "attributes").rows())
    assert rows == {"b": ["7", "x"], "cold": [], "c": [], "a": []}


def test_a_time_before_its_predecessor_is_raised_and_reported(tmp_path: Path) -> None:
    times = TIMES.replace(f"u1,a,1,{T}", f"u1,a,1,{T - 60}")
    data = _import(_file(tmp_path / "s.txt", SEQUENCES), Format.SEQUENCES, times=_file(tmp_path / "t.csv", times))
    assert _events(data)[1] == ("u1", "a")
    assert data.events["timestamp"].to_list()[:3] == [T * 1000] * 3
    assert any("1 events are dated before the one they follow" in note for note in data.report["notes"])


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        ((f"u1,a,2,{T}\n", ""), "1 events have no time", "s.txt, line 1"),
        ((f"u1,a,2,{T}", "u1,a,2,"), "1 events have no time", "s.txt, line 1"),
        pytest.param(
            ("u2,b,0", "u2,c,0"),
            "1 times belong to another item",
            "t.csv, line 6",
            id="change2-1 times are those of another item-t.csv, line 6",
        ),
        (("u1,a,2", "u1,a,1"), "2 times share user and place", "t.csv, lines 3, 4"),
        pytest.param(
            ("u1,a,2", "u1,a,two"), "not whole numbers", "t.csv, line 4", id="change4-no whole numbers-t.csv, line 4"
        ),
        (("pos,", "position,"), "columns are missing: pos", "columns found: user_id, item_id, position"),
        ((f"u2,b,0,{T}", f"u2,b,0,{T}000"), "mixes units", "t.csv, line 6"),
    ],
)
def test_times_that_do_not_fit_the_sequences_are_refused(
    tmp_path: Path, change: tuple[str, str], what: str, where: str
) -> None:
    error = _refusal(
        _file(tmp_path / "s.txt", SEQUENCES),
        Format.SEQUENCES,
        times=_file(tmp_path / "t.csv", TIMES.replace(*change)),
    )
    assert what in error.what
    assert where in (error.where or "")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("u1 a\nu2 b\nu1 c\n", "users have more than one line: 'u1'"),
        ("user_id,item_id\nu1,a\n", "`user item item …`"),
        ("u1\nu2\n", "no line names an item"),
        ("<html><body>not found</body></html>", "an HTML page"),
    ],
)
def test_a_file_that_holds_no_sequences_is_refused(tmp_path: Path, content: str, what: str) -> None:
    assert what in _refusal(_file(tmp_path / "s.txt", content), Format.SEQUENCES).what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param("{", "not valid JSON", id="{-no JSON"),
        pytest.param("[1]", "not an object, item → list", id="[1]-an object item → list"),
        pytest.param('{"a": 1}', "not an object, item → list", id='{"a": 1}-an object item → list'),
        pytest.param('{"a": [{}]}', "not an object, item → list", id='{"a": [{}]}-an object item → list'),
        pytest.param("{}", "do not name any item", id="{}-name no item"),
    ],
)
def test_attributes_that_are_no_attributes_are_refused(tmp_path: Path, content: str, what: str) -> None:
    log = _file(tmp_path / "s.txt", "u a\n")
    error = _refusal(log, Format.SEQUENCES, attributes=_file(tmp_path / "a.json", content))
    assert what in error.what


def test_csv_takes_its_columns_by_role(tmp_path: Path) -> None:
    log = _file(
        tmp_path / "log.csv.gz",
        gzip.compress(f'uid;sku;at;kind;paid;visit;junk\nu;"a;1";{T};cart;2.5;s1;x\n'.encode()),
    )
    roles = parse_columns("user=uid, item=sku,time=at,type=kind,value=paid,session=visit")
    data = _import(log, Format.CSV, columns=roles)
    assert data.events.rows() == [("u", "a;1", T * 1000, "cart", 2.5, "s1")]
    assert any("not used: junk" in note for note in data.report["notes"])


def test_scenes_are_read_under_their_own_name_or_a_given_one(tmp_path: Path) -> None:
    rows = f"u,a,{T}, home \nu,b,{T + 1},\nu,c,{T + 2},checkout\n"
    own = _file(tmp_path / "own.csv", "user_id,item_id,timestamp,scene\n" + rows)
    named = _file(tmp_path / "named.csv", "user_id,item_id,timestamp,page\n" + rows)
    for data in (_import(own, Format.CSV), _import(named, Format.CSV, columns={"scene": "page"})):
        assert data.events["scene"].to_list() == ["home", None, "checkout"]
        data.save(tmp_path / "data")
        assert Dataset.load(tmp_path / "data").events.equals(data.events)


def test_a_scene_column_with_nothing_in_it_or_too_much_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    def fingerprint(header: str, scene: str) -> str:
        rows = "".join(f"u,i{n},{T + n}{scene.format(n=n)}\n" for n in range(101))
        return _import(_file(tmp_path / "l.csv", f"user_id,item_id,timestamp{header}\n{rows}"), Format.CSV).fingerprint

    without = fingerprint("", "")
    assert fingerprint(",scene", ",") == without
    assert fingerprint(",scene", ",s{n}") == without
    assert fingerprint(",scene", ",s") != without


def test_parquet_keeps_typed_ids_and_times(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [7, 7], "item_id": [1, 2], "timestamp": [T, T + 1]})
    frame = frame.with_columns(pl.from_epoch("timestamp").dt.replace_time_zone("UTC"))
    frame.write_parquet(tmp_path / "log.parquet")
    data = _import(tmp_path / "log.parquet", Format.PARQUET)
    assert data.events.select("user_id", "item_id", "timestamp").rows() == [
        ("7", "1", T * 1000),
        ("7", "2", (T + 1) * 1000),
    ]


def test_a_csv_row_with_too_many_fields_is_refused_by_line(tmp_path: Path) -> None:
    error = _refusal(_file(tmp_path / "l.csv", "user_id,item_id\nu,a\nu,b,c\n"), Format.CSV)
    assert "3 fields, but the header has 2" in error.what
    assert "line 3" in (error.where or "")


def test_a_csv_row_with_too_few_fields_is_dropped_for_what_it_lacks(tmp_path: Path) -> None:
    data = _import(_file(tmp_path / "l.csv", f"user_id,item_id,timestamp\nu,a,{T}\nu\nu,b\n"), Format.CSV)
    assert data.report["dropped"] == {"no item id": 1, "no time": 1}


def test_a_csv_whose_lines_end_in_carriage_returns_only_is_refused(tmp_path: Path) -> None:
    error = _refusal(_file(tmp_path / "l.csv", "user_id,item_id\ru,a\r"), Format.CSV)
    assert "carriage returns only" in error.what


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    data = _import(_file(tmp_path / "l.csv", f"user_id,item_id,timestamp\r\nu,a,{T}\r\n"), Format.CSV)
    assert data.events["timestamp"].to_list() == [T * 1000]
    assert _events(_import(_file(tmp_path / "s.txt", "u a b\r\n"), Format.SEQUENCES)) == [
        ("u", "a"),
        ("u", "b"),
    ]


def test_a_csv_with_repeated_column_names_is_refused(tmp_path: Path) -> None:
    error = _refusal(_file(tmp_path / "l.csv", "user_id,item_id,item_id\nu,a,b\n"), Format.CSV)
    assert "repeated in the header: item_id" in error.what


def test_a_named_column_that_is_absent_is_refused_even_when_optional(tmp_path: Path) -> None:
    log = _file(tmp_path / "l.csv", "user_id,item_id,ts\nu,a,1\n")
    error = _refusal(log, Format.CSV, columns={"time": "when"})
    assert "time (looked for 'when')" in error.what


def test_a_column_called_row_is_a_column_like_any_other(tmp_path: Path) -> None:
    log = _file(tmp_path / "l.csv", "row,item_id\nu,a\n")
    assert _events(_import(log, Format.CSV, columns={"user": "row"})) == [("u", "a")]


ITEM_FILES = {
    "items.csv": 'item_id,title,category,brand,price\na,"Ay, one",Food > Fruit,B,1.5\nb,Bee,Food,,\n',
    "items.tsv": "item_id\ttitle\tcategory\tbrand\tprice\na\tAy, one\tFood>Fruit\tB\t1.5\nb\tBee\tFood\t\t\n",
    "items.jsonl": '{"item_id": "a", "title": "Ay, one", "category": ["Food", "Fruit"], "brand": "B", '
    '"price": 1.5}\n\n{"item_id": "b", "title": "Bee", "category": ["Food"]}\n',
}


@pytest.mark.parametrize("name", [*ITEM_FILES, "items.jsonl.gz", "items.parquet"])
def test_items_come_from_csv_tsv_json_lines_and_parquet(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pl.DataFrame(
            {
                "item_id": ["a", "b"],
                "title": ["Ay, one", "Bee"],
                "category": [["Food", "Fruit"], ["Food"]],
                "brand": ["B", None],
                "price": [1.5, None],
            }
        ).write_parquet(path)
    else:
        content = ITEM_FILES[name.removesuffix(".gz")].encode()
        _file(path, gzip.compress(content) if name.endswith(".gz") else content)
    data = _import(_file(tmp_path / "log.csv", "user_id,item_id\nu,a\n"), Format.CSV, items=path)
    assert data.items.rows() == [
        ("a", "Ay, one", ["Food", "Fruit"], "B", [], None, 1.5),
        ("b", "Bee", ["Food"], None, [], None, None),
    ]
    assert data.category_kind == "path"


def test_genres_between_bars_are_tags(tmp_path: Path) -> None:
    items = _file(tmp_path / "i.tsv", "item_id\ttitle\tgenres\na\tAy\tDrama|Crime\n")
    data = _import(_file(tmp_path / "s.txt", "u a\n"), Format.SEQUENCES, items=items)
    assert data.category_kind == "tags"
    assert data.items["category"].to_list() == [["Drama", "Crime"]]


def test_item_columns_can_be_named(tmp_path: Path) -> None:
    items = _file(tmp_path / "i.csv", "sku,label,kind,about\na,Ay,X|Y,words\n")
    log = _file(tmp_path / "l.csv", "user_id,sku\nu,a\n")
    roles = parse_columns("item=sku,title=label,attributes=kind,text=about")
    data = _import(log, Format.CSV, items=items, columns=roles)
    assert data.items.select("title", "attributes", "text").rows() == [("Ay", ["X", "Y"], "words")]


def test_attributes_join_an_item_table(tmp_path: Path) -> None:
    data = _import(
        _file(tmp_path / "s.txt", "u a b\n"),
        Format.SEQUENCES,
        items=_file(tmp_path / "i.csv", "item_id,title\nb,Bee\na,Ay\n"),
        attributes=_file(tmp_path / "a.json", '{"a": [1], "c": [2]}'),
    )
    assert data.items.select("item_id", "title", "attributes").rows() == [
        ("b", "Bee", []),
        ("a", "Ay", ["1"]),
        ("c", None, ["2"]),
    ]


@pytest.mark.parametrize(
    ("content", "what", "where"),
    [
        pytest.param(
            '{"item_id": "a"}\n{"item_id": \n',
            "not valid JSON",
            "line 2",
            id='{"item_id": "a"}\n{"item_id": \n-no JSON-line 2',
        ),
        pytest.param(
            '{"item_id": "a"}\n[1]\n', "not a JSON object", "line 2", id='{"item_id": "a"}\n[1]\n-no JSON object-line 2'
        ),
        ('{"thing": "a"}\n', "columns are missing: item", "columns found: thing"),
        ('{"item_id": "a", "price": {"eur": 1}}\n', "cannot be used", "column price"),
        ('{"item_id": "a", "title": ["x"]}\n', "cannot be used", "column title"),
        ('{"item_id": "a", "category": [["x"]]}\n', "cannot be used", "column category"),
    ],
)
def test_json_lines_that_are_none_are_refused(tmp_path: Path, content: str, what: str, where: str) -> None:
    log = _file(tmp_path / "l.csv", "user_id,item_id\nu,a\n")
    error = _refusal(log, Format.CSV, items=_file(tmp_path / "i.jsonl", content))
    assert what in error.what
    assert where in (error.where or "")


def test_users_bring_their_features(tmp_path: Path) -> None:
    data = _import(
        _file(tmp_path / "l.csv", "uid,item_id\nu,a\n"),
        Format.CSV,
        users=_file(tmp_path / "u.jsonl", '{"uid": "u", "plan": "pro", "level": 3, "tags": ["x"]}\n'),
        columns={"user": "uid"},
    )
    assert data.users.rows(named=True) == [{"user_id": "u", "plan": "pro", "level": "3"}]


def test_a_mapping_is_read_or_refused_as_a_whole() -> None:
    assert parse_columns("") == {}
    assert parse_columns("user=a b, item=c") == {"user": "a b", "item": "c"}
    for text, message in (("user", "not ROLE=COLUMN"), ("who=x", "not a role"), ("user=a,user=b", "twice")):
        with pytest.raises(ValueError, match=message):
            parse_columns(text)


@pytest.mark.parametrize(
    "request_",
    [
        ImportRequest("x", Format.CSV, times=Path("t")),
        ImportRequest("x", Format.COMPLETE_JOURNEY, items=Path("i")),
        ImportRequest("x", Format.SEQUENCES, columns={"user": "u"}),
    ],
)
def test_options_that_do_not_go_together_are_named(request_: ImportRequest) -> None:
    assert request_.misuse()
