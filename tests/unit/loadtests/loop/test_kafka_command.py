"""The command for Kafka goes on where it was interrupted, and says what is not in the store once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.loop import criteria, kafka, kafka_once, kafka_stages


def done(number: int, sent: int, once: int) -> kafka_once.Round:
    return kafka_once.Round(number, sent, once, missing=sent - once, twice=0, foreign=0, redelivered=0, seconds=1.0)


@pytest.mark.parametrize("lost", [0, 3])
def test_rounds_that_are_done_are_not_measured_again(
    lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    @contextmanager
    def scene(folder: Path, artifact: Path) -> Iterator[None]:
        yield None

    def run_round(_: None, number: int, events: int, *more: object) -> kafka_once.Round:
        if number == 1 and not ran:
            raise KeyboardInterrupt
        ran.append(number)
        return done(number, events, events - (lost if number == 2 else 0))

    monkeypatch.setattr(kafka_once, "scene", scene)
    monkeypatch.setattr(kafka_once, "run_round", run_round)
    monkeypatch.setattr(kafka, "ROUND", 100)
    monkeypatch.setattr(kafka, "read_items", lambda _: ["1"])
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "LOOP", tmp_path / "results" / "loop.json")
    work = tmp_path / "work"
    work.mkdir()
    (work / "once-300.json").write_bytes(orjson.dumps([done(0, 100, 100).to_json()]))
    app = typer.Typer()
    app.command()(kafka.main)
    command = ["once", "--artifact", str(tmp_path), "--events", "300", "--work", str(work), "--record"]
    interrupted = CliRunner().invoke(app, command)
    assert interrupted.exit_code != 0
    ran.append(-1)
    finished = CliRunner().invoke(app, command)
    assert finished.exit_code == (1 if lost else 0), finished.output
    assert ran == [-1, 1, 2]
    [row] = results.read_rows(results.LOOP)
    assert (row["criterion"], row["holds"]) == (criteria.KAFKA_ONCE, not lost)
    assert not work.exists()


def test_every_stage_has_a_row_and_the_whole_way_a_limit() -> None:
    for stage in kafka_stages.STAGES:
        found = criteria.row(criteria.kafka_stage(stage), 99.0, "ms", "command")
        assert found.limit == ("< 100" if stage == "all" else None)
        assert stage in kafka.DESIGNED
