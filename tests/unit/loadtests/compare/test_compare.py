"""The comparison with peers: what is asked, what counts as the same answer, which rows follow from the figures."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from loadtests.common import limit_criteria
from loadtests.compare.__main__ import fastest
from loadtests.compare.rows import OPEN_LOOP, UNCONFIRMED, Measured, criteria, ratio, system_row
from loadtests.compare.users import same_list
from loadtests.load import wrk
from loadtests.load.open_loop_driver import Arrival
from loadtests.peers import environments, processes
from loadtests.peers.closed_loop import ClosedLoop
from loadtests.peers.environments import PeerError
from loadtests.peers.systems import (
    OURS,
    Place,
    Subject,
    by_h,
    by_history,
    by_user,
    listed_items,
    request_body,
    stored_events,
    systems,
)

SUBJECT = Subject("u1", ("7", "9"), ("rating", "click"), (1000, 2000), np.array([0.5, -1.25], np.float32))
WRK = """Running 1s test @ http://127.0.0.1:1
  Latency Distribution
     50%  812.00us
     75%    1.40ms
     99%    1.05s
  1200 requests in 1.00s, 1.00MB read
  Non-2xx or 3xx responses: 3
Requests/sec:   1199.52
"""


def measured(key: str, rps: float, **more: Any) -> Measured:
    return Measured(key, OPEN_LOOP, rps, 5.0, 40.0, 1.5, 0.2, 20, **more)


def round_of(**rates: float) -> dict[str, Measured]:
    names = {
        "ours": f"{OURS}, warm users, embedded Valkey, workers 1",
        "two": f"{OURS}, warm users, embedded Valkey, workers 2",
        "lit": "litserve, encode + decode",
        "lit_h": "litserve, decode only",
        "bento": "bentoml, encode + decode",
    }
    return {names[name]: measured(names[name], rate) for name, rate in rates.items()}


def answer(*items: tuple[str, float]) -> dict[str, Any]:
    return {"items": [{"item_id": item, "score": score} for item, score in items]}


def test_a_warm_user_is_named_and_nothing_else_is_sent() -> None:
    assert by_user(SUBJECT) == {"user_id": "u1", "k": 10, "decoding": {"strategy": "beam", "beam_width": 5}}


def test_a_history_is_sent_as_columns_of_one_length() -> None:
    body = orjson.loads(orjson.dumps(by_history(SUBJECT)))
    assert body == {"items": ["7", "9"], "types": ["rating", "click"], "times_ms": [1000, 2000], "k": 10}


def test_a_prepared_h_survives_the_body_to_the_bit() -> None:
    body = by_h(SUBJECT)
    assert np.frombuffer(base64.b64decode(body["h"]), np.float32).tolist() == [0.5, -1.25]
    assert body["last_ms"] == 2000


def test_what_is_stored_is_the_history() -> None:
    assert [event["item_id"] for event in stored_events(SUBJECT)] == ["7", "9"]
    assert [event["timestamp"] for event in stored_events(SUBJECT)] == [1000, 2000]


def test_only_a_batching_bentoml_is_sent_a_list() -> None:
    bento = next(one for one in systems() if one.name == "bentoml")
    assert "bodies" in request_body(bento, SUBJECT, {"batch": 16})
    assert "bodies" not in request_body(bento, SUBJECT, {"batch": 1})


def test_every_system_has_a_key_of_its_own_and_says_what_it_cannot_do() -> None:
    rows = systems()
    assert len({one.key for one in rows}) == len(rows)
    assert all(one.cannot for one in rows if not one.is_ours)
    assert not any(one.cannot for one in rows if one.is_ours)


@pytest.mark.parametrize("system", systems(), ids=lambda one: one.key.replace(" ", "_"))
def test_every_setting_reaches_the_command(system: Any, tmp_path: Path) -> None:
    place = Place(tmp_path / "artefact", tmp_path / "run", tmp_path)
    for settings in system.tried:
        command = system.command("python", place, 1234, settings)
        assert "1234" in command
        assert all(command[command.index(f"--{name}") + 1] == str(value) for name, value in settings.items())
        assert system.environment is None or system.environment in environments.names()


def test_items_of_a_batched_answer_are_those_of_its_only_list() -> None:
    assert listed_items([answer(("1", 0.0))]) == listed_items(answer(("1", 0.0))) == ["1"]


def test_tied_items_may_change_places_and_others_may_not() -> None:
    expected = answer(("1", -1.0), ("2", -2.0), ("3", -2.00001))
    assert same_list(expected, ["1", "3", "2"], [-1.0, -2.0, -2.00001])
    assert not same_list(expected, ["2", "1", "3"], [-2.0, -1.0, -2.0])
    assert not same_list(expected, ["1", "2"], [-1.0, -2.0])


def test_a_ratio_is_paired_by_round_and_taken_over_the_best_of_both_sides() -> None:
    rounds = [
        round_of(ours=300.0, two=400.0, lit=100.0, bento=50.0),
        round_of(ours=90.0, lit=10.0, bento=30.0),
    ]
    assert ratio(rounds, ("litserve", "bentoml")) == pytest.approx((4.0 + 3.0) / 2)


def test_a_round_without_one_of_the_peers_gives_no_ratio() -> None:
    assert ratio([round_of(ours=300.0, lit=100.0)], ("litserve", "bentoml")) is None


def test_decode_only_rates_meet_no_limit_and_no_other_variant() -> None:
    rows = {one.criterion: one for one in criteria([round_of(ours=600.0, lit=100.0, lit_h=300.0, bento=150.0)], "c", 8)}
    limited = rows["2 rps / best of LitServe and BentoML"]
    assert (limited.value, limited.limit, limited.holds) == (4.0, "≥ 3", True)
    stated = rows["2 rps / LitServe, decode only"]
    assert (stated.value, stated.limit, stated.holds) == (2.0, None, None)
    assert not any("torch eager" in name for name in rows)


def test_a_row_is_the_median_of_its_rounds() -> None:
    system = systems()[0]
    rounds = [{system.key: measured(system.key, rate, wrk=ClosedLoop(rate, 1.0, 2.0, 8, None))} for rate in (1.0, 9.0)]
    row = system_row(system, {"workers": 1}, [], rounds)
    assert row is not None
    assert (row["rps"], row["rps_by_round"], row["wrk"]["rps"]) == (5.0, [1.0, 9.0], 5.0)
    assert orjson.loads(orjson.dumps(row)) == row


def test_a_rate_that_was_not_confirmed_is_said_so() -> None:
    system = systems()[0]
    notes = [
        system_row(system, {}, [], [{system.key: measured(system.key, 1.0, confirmed=yes)}])["notes"]  # type: ignore[index]
        for yes in (True, False)
    ]
    assert notes == [list(system.notes), [*system.notes, UNCONFIRMED]]


def test_a_system_that_was_never_measured_has_no_row() -> None:
    assert system_row(systems()[0], {}, [], [{}]) is None


def test_the_fastest_settings_are_taken() -> None:
    def tried(*rates: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"settings": {"workers": n}, "rps": rps, "p99_ms": p99} for n, (rps, p99) in enumerate(rates, 1)]

    assert fastest(tried((10.0, 20.0), (30.0, 40.0), (20.0, 30.0))) == {"workers": 2}
    assert fastest(tried((10.0, 20.0), (30.0, 90.0), (20.0, 30.0))) == {"workers": 3}
    assert fastest(tried((10.0, 200.0), (30.0, 90.0))) == {"workers": 2}
    assert fastest([]) is None


def test_wrk_is_understood_in_every_unit() -> None:
    found = wrk.parse(WRK)
    assert (found.rate, found.p50_ms, found.p99_ms) == (1199.52, 0.812, 1050.0)
    assert found.bad == "Non-2xx or 3xx responses: 3"
    with pytest.raises(RuntimeError):
        wrk.parse("unable to connect")


def test_bodies_are_quoted_for_lua() -> None:
    assert r'"{\"a\":\"\\n\"}"' in wrk.lua([Arrival(0.0, "/recommend", rb'{"a":"\n"}')])


def test_an_environment_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    with pytest.raises(PeerError, match=r"python -m loadtests\.peers install litserve"):
        environments.python("litserve")
    with pytest.raises(PeerError, match="no peer is named"):
        environments.install("nothing")


def test_every_requirement_is_pinned() -> None:
    for file in environments.REQUIREMENTS.glob("*.txt"):
        assert all("==" in line for line in file.read_text("utf-8").split()), file


CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_server_ends_with_its_children_even_those_of_another_session(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with processes.running(
        [sys.executable, "-c", CHILD], 1, dict(os.environ), log, lambda _: bool(log.read_bytes())
    ) as server:
        child = int(log.read_bytes())
        assert {server.pid, child} <= processes.family(server.pid)
        assert server.cpu_seconds() > 0.0
    assert not processes.family(server.pid)
    assert not alive(child)


def test_a_server_that_ends_at_once_is_said_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no artefact')"]
    with (
        pytest.raises(PeerError, match="no artefact"),
        processes.running(command, 1, dict(os.environ), tmp_path / "log", lambda _: False),
    ):
        pass


def test_peers_are_listed_by_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.peers", "list"], capture_output=True, text=True, check=True, timeout=60
    )
    assert [line.split(":")[0] for line in done.stdout.split("\n") if line] == environments.names()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_at_the_width_of_before_only_the_second_reading_is_recorded() -> None:
    rows = criteria([round_of(ours=600.0, lit=100.0, lit_h=300.0, bento=150.0)], "c", limit_criteria.WIDE)
    assert [(row.criterion, row.value, row.holds) for row in rows] == [
        (limit_criteria.PEERS_WIDE[limit_criteria.PEERS_SERVERS], 4.0, False)
    ]
