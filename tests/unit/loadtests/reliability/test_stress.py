"""What the commands that overload and break a service count, on answers written by hand."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import orjson
import pytest

from loadtests.load.open_loop_driver import Answer
from loadtests.load.replay import RECOMMEND
from loadtests.reliability import breach, overload, stress


def answer(due_s: float, rung: str | None = "full", *, ms: float = 5.0, reason: str | None = None) -> Answer:
    return Answer(RECOMMEND, due_s, ms / 1e3, 200, rung, reason, ms)


def failed(due_s: float, status: int | str) -> Answer:
    return Answer(RECOMMEND, due_s, None, status)


def test_each_second_has_its_answers_by_rung_and_reason() -> None:
    answers = [answer(0.1), answer(0.9, "item_cf", reason="overload"), answer(1.2, ms=81.0), failed(1.9, 503)]
    assert stress.seconds_of(answers, 2.0) == [
        {"rungs": {"full": 1, "item_cf": 1}, "reasons": {"overload": 1}, "late": 0, "errors": 0},
        {"rungs": {"full": 1}, "reasons": {}, "late": 1, "errors": 1},
    ]


def test_a_request_without_an_answer_is_not_within_the_budget() -> None:
    answers = [answer(0.0), answer(0.1, "narrow", ms=80.0), answer(0.2, ms=80.1), failed(0.3, "timeout")]
    found = stress.tally(answers, 2.0)
    assert found["within_budget"] == 50.0
    assert (found["late"], found["answered"], found["requests"]) == (1, 3, 4)
    assert found["errors"] == {"/recommend timeout": 1}
    assert found["model_rate"] == 1.5


def test_only_server_errors_are_counted_as_5xx() -> None:
    found = stress.tally([failed(0.0, 503), failed(0.1, 422), failed(0.2, "cut off")], 1.0)
    assert (found["errors_5xx"], sum(found["errors"].values())) == (1, 3)


def test_users_ask_in_a_poisson_process_and_the_same_seed_asks_the_same() -> None:
    users = stress.Crowd([b"a", b"b", b"c"])
    arrivals = users.arrivals(100.0, 20.0, 1)
    assert len(arrivals) == pytest.approx(2000, rel=0.1)
    assert {arrival.body for arrival in arrivals} == {b"a", b"b", b"c"}
    assert arrivals == users.arrivals(100.0, 20.0, 1) != users.arrivals(100.0, 20.0, 2)


def steps(*parts: tuple[float, float]) -> list[dict[str, Any]]:
    """(seconds, share of the model) after each other, 100 answers a step."""
    return [
        {"rungs": {"full": round(100 * share), "item_cf": round(100 * (1 - share))}}
        for seconds, share in parts
        for _ in range(round(seconds / breach.STEP_S))
    ]


def test_a_breach_that_moves_traffic_and_gives_it_back_is_timed_from_both_moments() -> None:
    found = breach.judged(steps((10, 1.0), (3, 0.6), (17, 0.03), (4, 0.4), (20, 1.0)), 10.0, 30.0)
    assert found == {"moved_s": 3.0, "back_s": 4.0, "full_s": 4.0, "turns": 2}


def test_narrow_lists_are_the_model_s_but_not_full_ones() -> None:
    narrow = [{"rungs": {"narrow": 100}}] * 20
    found = breach.judged([*steps((10, 1.0), (20, 0.0)), *narrow, *steps((10, 1.0))], 10.0, 30.0)
    assert (found["back_s"], found["full_s"]) == (0.0, 10.0)


def test_traffic_that_never_moves_or_never_comes_back_has_no_time() -> None:
    assert breach.judged(steps((10, 1.0), (20, 0.6), (10, 1.0)), 10.0, 30.0)["moved_s"] is None
    assert breach.judged(steps((10, 1.0), (40, 0.0)), 10.0, 30.0)["back_s"] is None


def test_a_moment_below_the_model_is_not_a_move_and_flapping_is_counted() -> None:
    found = breach.judged(steps((10, 1.0), (2, 0.0), (5, 1.0), (13, 0.0), (20, 1.0)), 10.0, 30.0)
    assert (found["moved_s"], found["turns"]) == (7.0, 4)


def run(times: int, model_rate: float, **more: Any) -> dict[str, Any]:
    return {"times": times, "model_rate": model_rate, "requests": 100, "answered": 100, "within_budget": 100.0,
            "own_within_budget": 100.0, "changes": [], **more}  # fmt: skip


class Rows:
    """Takes rows as a bench does."""

    def __init__(self) -> None:
        self.limits: dict[str, bool] = {}

    def row(self, criterion: str, value: float, unit: str, **limit: float) -> None:  # noqa: ARG002
        if limit:
            self.limits[criterion] = value <= limit.get("at_most", value) and value >= limit.get("at_least", value)


def test_every_promise_of_an_overload_has_a_row_that_can_fail() -> None:
    rows = Rows()
    bad = run(10, 30.0, answered=99, within_budget=99.8, changes=[{"breaker": "open"}])
    overload.judge(rows, [run(1, 40.0), bad])  # type: ignore[arg-type]
    assert [holds for name, holds in rows.limits.items() if " 1 × " in name] == [True] * 4
    assert [holds for name, holds in rows.limits.items() if " 10 × " in name] == [False] * 4


class Guard(BaseHTTPRequestHandler):
    """Says the states of the breaker one after another, then the last again and again."""

    states: list[str]

    def do_GET(self) -> None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        body = orjson.dumps({"breaker": state, "budgets": {"model_share": 0.0, "cause": None}})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_watch_tells_the_changes_of_the_breaker_and_takes_its_actions_in_order() -> None:
    guard = type("Told", (Guard,), {"states": ["closed", "open", "open", "half_open", "closed"]})
    taken: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), guard) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        actions = [(0.0, "first", lambda: taken.append("first")), (0.05, "second", lambda: taken.append("second"))]
        with stress.watched(url, actions, every_s=0.01) as watch:
            while not (len(watch.samples) > 5 and len(taken) == 2):
                thread.join(0.005)
        server.shutdown()
        thread.join()
    assert [change["breaker"] for change in watch.changes(0.0)] == ["open", "half_open", "closed"]
    assert taken == [name for _, name in watch.done] == ["first", "second"]
