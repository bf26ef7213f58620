"""The commands that compare streams by behaviour, in a short form: what they train, judge and record."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.quality import behaviours
from loadtests.quality.behaviour_logs import known_log
from model.data.dataset import Dataset
from tests.support.data_builders import tiny_dataset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rows go."""
    monkeypatch.setattr(behaviours, "MEMORY", tmp_path / "memory.json")
    return tmp_path / "memory.json"


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(behaviours.app, arguments)
    return done.exit_code, done.output


def test_the_next_purchase_follows_from_the_one_before_or_from_the_search_before_it() -> None:
    log = known_log(users=20, items=30, clicks=2)
    assert log.searches is not None
    for user, events in log.events.group_by("user_id", maintain_order=True):
        bought = events.filter(pl.col("event_type") == "purchase")
        asked = dict(log.searches.filter(pl.col("user_id") == user[0]).select("timestamp", "query").iter_rows())
        items = [int(name[1:]) for name in bought["item_id"]]
        for before, item, at in zip(items, items[1:], bought["timestamp"][1:], strict=False):
            query = asked.get(at - 1000)
            assert item == ((before + 1) % 30 if query is None else int(query.rsplit(" ", 1)[1]))
        assert (bought["timestamp"][-1] - 1000 in asked) == (int(str(user[0])[1:]) % 2 == 0)


def test_the_known_log_is_judged_by_its_criteria_and_only_what_was_asked_for_is_trained(
    memory: Path, tmp_path: Path
) -> None:
    options = ["known", "--work", str(tmp_path), "--users", "100", "--epochs", "1", "--only"]
    assert run(*options, "mixed; streams, queries")[0] == 0
    rows = {row["criterion"]: row for row in results.read_rows(memory)}
    weights = [row["value"] for name, row in rows.items() if ", weight of the stream " in name]
    assert len(weights) == 3 and sum(weights) == pytest.approx(1.0, abs=1e-3), "α, β and γ"
    found = {name: row for name, row in rows.items() if ", weight of" not in name}
    assert set(found) == {f"behaviours, known log: {name}, after a search" for name in ("mixed", "streams, queries")}
    assert all(row["limit"] is not None for row in found.values())
    assert {place.name for place in tmp_path.glob("*-0")} == {"mixed-0", "streams-queries-0"}
    code, said = run(*options, "streams, losses")
    assert code == 2 and "choose from" in said, "the criteria say nothing of it"


def test_a_log_of_purchases_alone_compares_every_variant_without_queries_with_the_mixed_stream(
    memory: Path, tmp_path: Path
) -> None:
    whole = tiny_dataset(users=30, min_events=8)
    events = whole.events.with_columns(event_type=pl.lit("purchase"))
    Dataset.of("bought", events, whole.items, whole.users, has_time=True).save(tmp_path / "data")
    assert run("log", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "work"), "--epochs", "1")[0] == 0
    found = {row["criterion"] for row in results.read_rows(memory) if ", weight of" not in row["criterion"]}
    ahead = [
        f"behaviours, bought: {name}{end}"
        for name in ("streams", "streams, losses")
        for end in ("", " − mixed, lower end", " − mixed, upper end")
    ]
    assert found == {"behaviours, bought: mixed", *ahead}
