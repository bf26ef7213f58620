from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, NO_SCENE, Dataset, sequences
from model.data.errors import DataError
from model.data.fingerprint import fingerprint
from service.artifact.features import EVENT_TYPES
from tests.support.data_builders import tiny_dataset


def _log(rows: list[tuple[str, str, int | None, str]], items: list[str] | None = None) -> Dataset:
    events = pl.DataFrame([(*row, None, None) for row in rows], schema=EVENT_SCHEMA, orient="row")
    ids = items if items is not None else events["item_id"].unique(maintain_order=True).to_list()
    table = pl.DataFrame(
        {"item_id": ids, **{n: [None] * len(ids) for n in ITEM_SCHEMA if n != "item_id"}}, schema=ITEM_SCHEMA
    )
    users = pl.DataFrame({"user_id": events["user_id"].unique(maintain_order=True)})
    return Dataset.of("log", events, table, users, has_time=rows[0][2] is not None)


@pytest.mark.parametrize("has_time", [True, False])
def test_a_saved_data_set_loads_as_it_was(tmp_path: Path, has_time: bool) -> None:
    made = tiny_dataset(has_time=has_time, category_kind="tags")
    made.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    for table in ("events", "items", "users"):
        assert getattr(loaded, table).equals(getattr(made, table))
    assert (loaded.name, loaded.source, loaded.has_time, loaded.category_kind) == (
        made.name,
        made.source,
        has_time,
        "tags",
    )
    assert loaded.fingerprint == made.fingerprint


def test_saving_replaces_an_earlier_data_set_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    tiny_dataset(seed=1).save(tmp_path / "data")
    second = tiny_dataset(seed=2)
    second.save(tmp_path / "data")
    assert Dataset.load(tmp_path / "data").fingerprint == second.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_failing_save_keeps_the_earlier_data_set(tmp_path: Path) -> None:
    first = tiny_dataset(seed=1)
    first.save(tmp_path / "data")
    second = tiny_dataset(seed=2)
    second.report["not JSON"] = object()
    with pytest.raises(TypeError):
        second.save(tmp_path / "data")
    assert Dataset.load(tmp_path / "data").fingerprint == first.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_is_no_data_set_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="not a data set"):
        tiny_dataset().save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_file_or_link_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tiny_dataset().save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("file", "link"):
        with pytest.raises(DataError, match="already there"):
            tiny_dataset(seed=3).save(tmp_path / name)
    assert (tmp_path / "link").is_symlink()


def test_an_empty_folder_may_become_a_data_set(tmp_path: Path) -> None:
    tiny_dataset().save(tmp_path)
    Dataset.load(tmp_path)


def test_loading_a_folder_without_meta_says_how_to_make_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gpt4rec data import"):
        Dataset.load(tmp_path / "nothing")


def test_a_data_set_whose_tables_were_changed_is_refused(tmp_path: Path) -> None:
    tiny_dataset(seed=1).save(tmp_path / "one")
    tiny_dataset(seed=2).save(tmp_path / "two")
    (tmp_path / "one" / "events.parquet").write_bytes((tmp_path / "two" / "events.parquet").read_bytes())
    with pytest.raises(DataError, match="fingerprints differ"):
        Dataset.load(tmp_path / "one")


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    tiny_dataset().save(tmp_path / "data")
    table = tmp_path / "data" / "items.parquet"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        Dataset.load(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not that of a data set"),
        ({"format_version": 99}, "format 99"),
        ({"fingerprint": None}, "fingerprints differ"),
    ],
)
def test_a_foreign_meta_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    tiny_dataset().save(tmp_path / "data")
    meta = tmp_path / "data" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        Dataset.load(tmp_path / "data")


def test_meta_that_is_no_json_or_lacks_a_field_is_refused(tmp_path: Path) -> None:
    tiny_dataset().save(tmp_path / "data")
    meta = tmp_path / "data" / "meta.json"
    content = json.loads(meta.read_text())
    del content["report"]
    meta.write_text(json.dumps(content))
    with pytest.raises(DataError, match="lacks report"):
        Dataset.load(tmp_path / "data")
    meta.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Dataset.load(tmp_path / "data")


def test_the_fingerprint_sees_every_table_and_the_category_kind() -> None:
    base = tiny_dataset()
    marks = {
        base.fingerprint,
        fingerprint(base.events.head(-1), base.items, base.users, "path"),
        fingerprint(base.events, base.items.reverse(), base.users, "path"),
        fingerprint(base.events, base.items, base.users.with_columns(gender=pl.lit("F")), "path"),
        fingerprint(base.events, base.items, base.users, "tags"),
    }
    assert len(marks) == 5
    assert tiny_dataset().fingerprint == base.fingerprint


def test_the_fingerprint_tells_null_from_empty_and_where_a_list_ends() -> None:
    def mark(values: list[list[str] | None]) -> str:
        table = pl.DataFrame({"c": values}, schema={"c": pl.List(pl.String)})
        return fingerprint(table, table, table, "tags")

    texts: list[list[list[str] | None]] = [[["ab"]], [["a", "b"]], [["a"], ["b"]], [[]], [None], [[""]]]
    assert len({mark(values) for values in texts}) == len(texts)


def test_sequences_lay_out_users_and_items_in_order_of_appearance() -> None:
    log = _log([("b", "x", 5, "view"), ("b", "y", 6, "odd"), ("a", "x", 1, "purchase")], items=["z", "y", "x"])
    seqs = sequences(log)
    assert seqs.user_ids == ["b", "a"]
    assert seqs.item_ids == ["z", "y", "x"]
    assert seqs.offsets.tolist() == [0, 2, 3]
    assert seqs.item.tolist() == [2, 1, 2]
    assert [EVENT_TYPES[t] for t in seqs.type] == ["view", "other", "purchase"]
    assert seqs.time_ms.tolist() == [5, 6, 1]
    assert seqs.user(1) == slice(2, 3)
    assert {seqs.item.dtype, seqs.type.dtype, seqs.time_ms.dtype, seqs.offsets.dtype} == {np.dtype(np.int64)}


def test_items_that_only_the_log_knows_join_the_catalogue_at_its_end() -> None:
    seqs = sequences(_log([("u", "new", 1, "view"), ("u", "old", 2, "view")], items=["old"]))
    assert seqs.item_ids == ["old", "new"]
    assert seqs.item.tolist() == [1, 0]


def test_impressions_are_in_no_history_and_a_user_with_nothing_else_is_left_out() -> None:
    seqs = sequences(_log([("a", "x", 1, "impression"), ("b", "x", 1, "view"), ("b", "y", 2, "impression")]))
    assert seqs.user_ids == ["b"]
    assert seqs.n_events == 1
    assert seqs.item_ids == ["x", "y"]


def test_scenes_stay_with_their_events_and_a_log_without_them_has_none() -> None:
    log = _log([("a", "x", 1, "view"), ("a", "y", 2, "impression"), ("b", "x", 1, "view"), ("b", "z", 2, "view")])
    scenes = pl.Series("scene", ["shop", "ad", None, "home"])
    seqs = sequences(replace(log, events=log.events.with_columns(scenes)))
    assert seqs.scenes == ("home", "shop")
    assert seqs.scene is not None
    assert seqs.scene.tolist() == [1, NO_SCENE, 0]
    for events in (log.events, log.events.with_columns(scene=pl.lit(None, pl.String))):
        assert sequences(replace(log, events=events)).scene is None


def test_without_times_every_time_is_zero() -> None:
    seqs = sequences(tiny_dataset(has_time=False))
    assert not seqs.has_time
    assert not seqs.time_ms.any()


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), users=st.integers(1, 12), items=st.integers(5, 20))
def test_sequences_keep_every_event_of_every_user(seed: int, users: int, items: int) -> None:
    data = tiny_dataset(users, items, seed)
    seqs = sequences(data)
    told = [
        (seqs.user_ids[u], seqs.item_ids[i], t)
        for u in range(seqs.n_users)
        for i, t in zip(seqs.item[seqs.user(u)], seqs.time_ms[seqs.user(u)], strict=True)
    ]
    assert told == data.events.select("user_id", "item_id", "timestamp").rows()
