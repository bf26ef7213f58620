"""Tests do not sleep for a guessed time: they poll with a deadline, or the sleep is what a fake does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
# File and function of the sleeps that are what is tested, not a wait for it.
TAKES_TIME = {
    ("support/fakes.py", "decode"),  # a model that takes long
    ("integration/test_client_faults.py", "test_a_client_that_sends_slowly_but_in_time_is_served"),
}
# A function that looks at a clock, or counts its rounds, gives up at some time.
BOUNDS = ("monotonic()", "perf_counter()", "loop.time()", "asyncio.timeout(", "range(", "deadline")


def sleeps(source: str) -> Iterator[tuple[str, int]]:
    """Function and line of each sleep that is longer than 0 and is not in a loop that gives up at some time."""
    tree = ast.parse(source)
    above = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or ast.unparse(call.func).rpartition(".")[2] != "sleep":
            continue
        if call.args and isinstance(call.args[0], ast.Constant) and not call.args[0].value:
            continue  # gives other tasks a turn
        outside = [node := above[call]]
        while node in above:
            outside.append(node := above[node])
        function = next((one for one in outside if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)), tree)
        inside = outside[: outside.index(function)]
        polls = any(isinstance(one, ast.While | ast.For | ast.AsyncFor) for one in inside)
        if not polls or not any(bound in ast.unparse(function) for bound in BOUNDS):
            yield getattr(function, "name", ""), call.lineno


def test_no_test_sleeps_for_a_guessed_time() -> None:
    found = [
        f"tests/{place}:{line}"
        for file in sorted(TESTS.rglob("*.py"))
        for function, line in sleeps(file.read_text("utf-8"))
        if ((place := file.relative_to(TESTS).as_posix()), function) not in TAKES_TIME
    ]
    assert not found, f"poll with a deadline (tests/support/aio.py, eventually): {found}"


def test_a_guessed_time_and_a_loop_without_an_end_are_found() -> None:
    source = """
def guessed():
    time.sleep(0.3)
async def a_turn():
    await asyncio.sleep(0)
def endless():
    while not ready():
        sleep(0.1)
def polled():
    until = time.monotonic() + 5
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.1)
"""
    assert list(sleeps(source)) == [("guessed", 3), ("endless", 8)]
