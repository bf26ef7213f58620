"""What training reads of a log is what plain loops read, and trainings go on from it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from loadtests.loop.random_logs import RandomLog, random_log
from model.cli.data import app as data_app
from model.cli.train_evaluate import train_app
from model.data.dataset import SEARCH_SCHEMA, Dataset
from model.online.log_folder import LogFolder
from model.online.log_schema import LogError, frame_of
from model.online.partitions import LogRange
from model.online.training_data import extended, is_log
from model.reference.attribution import attribute_plainly
from model.training.run_folder import Run
from service.store.records import Subject
from tests.support.increments import NEW_ITEMS, Grown

START_MS = 1_780_000_000_000
_DAY_MS = 86_400_000
Rows = list[dict[str, Any]]
Counted = Counter[tuple[Any, ...]]


def written(folder: Path, exposures: Rows, events: Rows, merges: Rows = (), erased: Rows = ()) -> LogFolder:  # type: ignore[assignment]
    place = LogFolder(folder)
    place.write("exposures", frame_of("exposures", exposures), "a")
    place.write("events", frame_of("events", events), "a")
    place.write("merges", frame_of("merges", merges), "a")
    place.write("erased", frame_of("erased", erased), "a")
    return place


def event(subject: str, n: int, **more: Any) -> dict[str, Any]:
    return {
        "subject": subject,
        "item_id": "1",
        "type": "click",
        "time_ms": START_MS + n,
        "received_ms": START_MS + n,
    } | more


def counted(dataset: Dataset) -> Counted:
    return Counter(dataset.events.select("user_id", "item_id", "event_type", "timestamp").iter_rows())


def plainly(log: RandomLog) -> Counted:
    """The events of histories, each once, by plain loops."""
    found = set()
    _, outcomes = attribute_plainly(log.exposures, log.events, log.merges, log.erased, 30 * 60_000)
    for row in (log.events[outcome.event] for outcome in outcomes):
        if row["type"] != "impression" and row["item_id"] is not None:
            later = [
                (one["merged_ms"], one["into"]) for one in log.merges
                if one["subject"] == row["subject"] and one["merged_ms"] >= row["received_ms"]
            ]  # fmt: skip
            owner = min(later, key=lambda pair: pair[0])[1] if later else row["subject"]
            found.add((owner.removeprefix("u:"), row["item_id"], row["type"], row["time_ms"]))
    return Counter(found)


@pytest.mark.parametrize("seed", range(2))
def test_the_events_are_those_of_the_plain_loops_whatever_the_parts(seed: int, tmp_path: Path) -> None:
    log = random_log(seed, events=300, subjects=16, hours=0.9, start_ms=START_MS)
    folder = written(tmp_path / "log", log.exposures, log.events, log.merges, log.erased)
    whole, parts = (extended(None, LogRange(folder, part_bytes=size), made=True).dataset for size in (10**9, 4000))
    assert whole.fingerprint == parts.fingerprint
    assert counted(whole) == plainly(log)
    before = whole.events.select(pl.col("timestamp") >= pl.col("timestamp").shift(1).over("user_id"))
    assert before["timestamp"].all()


def test_a_range_goes_by_reception_and_keeps_the_events_of_older_lists(tmp_path: Path) -> None:
    shown = {"list_id": "L", "request_id": "r", "subject": "u:a%20b", "time_ms": START_MS, "items": ["1"], "k": 1}
    days = [event("u:a%20b", n, received_ms=START_MS + n * _DAY_MS, list_id="L" if n == 2 else None) for n in range(4)]
    folder = written(tmp_path / "log", [shown], days)
    read = extended(None, LogRange(folder, from_ms=START_MS + 2 * _DAY_MS, until_ms=START_MS + 3 * _DAY_MS)).dataset
    assert counted(read) == Counter([("a b", "1", "click", START_MS + 2)])
    with pytest.raises(LogError, match="no event is left"):
        extended(None, LogRange(folder, from_ms=START_MS + 9 * _DAY_MS))


def test_made_traffic_and_erased_users_leave_the_older_data_too(tmp_path: Path) -> None:
    fast = [event("u:bot", n, item_id=str(n)) for n in range(61)]
    first = extended(None, LogRange(written(tmp_path / "a", [], [*fast[:9], event("u:1", 0), event("s:2", 0)]))).dataset
    searches = [("1", START_MS, "gone"), ("s:2", START_MS, "kept"), ("1", START_MS + 9, "later")]
    first = replace(first, searches=pl.DataFrame(searches, schema=SEARCH_SCHEMA, orient="row"))
    gone = [{"subject": "u:1", "erased_ms": START_MS + 5}]
    found = extended(first, LogRange(written(tmp_path / "b", [], [*fast, event("u:1", 9)], erased=gone)))
    assert counted(found.dataset) == Counter({("s:2", "1", "click", START_MS): 1, ("1", "1", "click", START_MS + 9): 1})
    assert (found.made, found.erased, found.new) == (61, 1, 1)
    assert found.dataset.searches is not None
    assert found.dataset.searches["query"].to_list() == ["kept", "later"]


def test_a_training_goes_on_from_a_log_and_resumes_with_what_it_had_read(grown_run: Grown, tmp_path: Path) -> None:
    made = grown_run
    rows = [
        event(
            Subject("user", row["user_id"]).tag[1:-1], 0, item_id=row["item_id"], type=row["event_type"],
            value=row["value"], time_ms=row["timestamp"], received_ms=row["timestamp"],
        )
        for row in Dataset.load(made.new).events.iter_rows(named=True)
    ]  # fmt: skip
    log, both, out = tmp_path / "log", tmp_path / "both", tmp_path / "increment"
    folder = written(log, [], rows)
    assert is_log(str(log))
    assert not is_log(str(made.new))
    titles = tmp_path / "items.csv"
    titles.write_text("item_id,title\ni3,Third\nnever,Seen\n")
    asked = [
        "from-log",
        "--log",
        str(log),
        "--data",
        str(made.old),
        "--out",
        str(both),
        "--items",
        str(titles),
        "--json",
    ]
    done = CliRunner().invoke(data_app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["new_items"] == len(NEW_ITEMS)
    found, before = Dataset.load(both), Dataset.load(made.old).items
    assert counted(found) == counted(Dataset.load(made.all))
    assert found.items.head(len(before)).equals(before)
    known = dict(found.items.select("item_id", "title").iter_rows())
    assert (known["i3"], known["never"]) == ("Third", "Seen")

    command = ["--init", str(made.run), "--data", str(log), "--out", str(out), "--ewc", "0", "--set", "max_epochs=1"]
    done = CliRunner().invoke(train_app, command)
    assert done.exit_code == 0, done.output
    learned = Run.open(out).dataset()
    assert counted(learned) == counted(found)
    folder.write("events", frame_of("events", [event("u:late", 0)]), "later")
    again = CliRunner().invoke(train_app, [*command, "--resume"])
    assert again.exit_code == 0, again.output
    assert Run.open(out).dataset().fingerprint == learned.fingerprint
