"""New items by the items their texts are like: from a table of them to the file that a service follows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from model.cli.data import app
from model.data.dataset import Dataset
from model.texts.sentence_vectors import TextError, find_weights
from model.training.config import TrainConfig
from model.training.trainer import Trainer
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.catalogue.updates_file import parse
from tests.support.data_builders import tiny_dataset

run = CliRunner().invoke
# Items of the tiny data set are of six groups in turn.
TOPICS = ("wine glasses", "garden hose", "acoustic guitar strings", "baby pyjamas", "laptop charger", "dog food")


def dataset(*, texts: bool = True) -> Dataset:
    plain = tiny_dataset()
    text = [f"{TOPICS[i % 6]}, number {i}" if texts else None for i in range(30)]
    items = plain.items.with_columns(
        text=pl.Series(text, dtype=pl.String), title=pl.Series(text if texts else [None] * 30, dtype=pl.String)
    )
    # Nobody used i6, and only one user i12, who did so last: a training holds that out.
    used = plain.events.filter(~pl.col("item_id").is_in(["i6", "i12"]))
    last = used.tail(1).with_columns(item_id=pl.lit("i12"), timestamp=pl.col("timestamp") + 1000)
    events = pl.concat([used, last])
    return Dataset.of("shop", events, items, plain.users, has_time=True, category_kind="path")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    trained(tmp_path, dataset(), monkeypatch)
    return tmp_path


def trained(folder: Path, shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    shop.save(folder / "shop")
    shutil.rmtree(folder / "run", ignore_errors=True)
    settings = TrainConfig(size="tiny", max_length=16, max_epochs=1, validation_users=0)
    Trainer(shop, folder / "shop", folder / "run", settings).fit()


def like(folder: Path, table: str, *options: str) -> tuple[int, str]:
    (folder / "new.csv").write_text(table, "utf-8")
    files = ["--run", str(folder / "run"), "--items", str(folder / "new.csv"), "--out", str(folder / "new.jsonl")]
    result = run(app, ["like", *files, *options])
    return result.exit_code, result.output


def test_a_new_item_is_like_used_items_that_say_the_same(shop: Path) -> None:
    try:
        find_weights()
    except TextError as error:
        pytest.skip(str(error))
    rows = [
        "n1,Two crystal wine glasses,Home > Table",
        "n2,,Home",
        "i3,Guitar,Home",
        ",Nameless,",
        "n3,Puppy food,Pets",
    ]
    code, said = like(shop, "\n".join(["item_id,title,category", *rows, ""]), "--neighbours", "3")
    assert code == 0, said
    assert (
        "2 new items" in said
        and "1 left out, already in the data set: i3" in said
        and "without text and title: n2" in said
    )
    lines = [json.loads(line) for line in (shop / "new.jsonl").read_text("utf-8").splitlines()]
    assert [line["item_id"] for line in lines] == ["n1", "n3"]
    groups = [{int(other[1:]) % 6 for other in line["like"]} for line in lines]
    assert groups == [{TOPICS.index("wine glasses")}, {TOPICS.index("dog food")}]
    # Wine glasses are i0, i6, i12, i18 and i24; of i6 and i12 the model has learned nothing.
    assert set(lines[0]["like"]) == {"i0", "i18", "i24"}

    exported = Catalogue.of([CatalogueItem(f"i{i}", None) for i in range(30)])
    updates = parse((shop / "new.jsonl").read_bytes(), exported)
    assert not updates.faults and updates.new["n1"].item.category == ("Home", "Table")


def test_without_texts_the_command_says_so_and_leaves_the_file(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(shop, dataset(texts=False), monkeypatch)
    (shop / "new.jsonl").write_text("before", "utf-8")
    code, said = like(shop, "item_id,title\nn1,Wine\n")
    assert code == 1 and "has a text or a title" in said
    assert (shop / "new.jsonl").read_text("utf-8") == "before"


def test_a_bad_table_is_refused(shop: Path) -> None:
    code, said = like(shop, "label,title\nn1,Wine\n")
    assert code == 1 and "item_id" in said
    assert not (shop / "new.jsonl").exists()
