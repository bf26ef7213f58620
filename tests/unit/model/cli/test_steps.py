"""Where a long command is, without a terminal."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

from rich.console import Console

from model.cli.steps import counts, steps


def test_each_slow_step_is_a_line() -> None:
    out = io.StringIO()
    with steps(Console(file=out, width=20), "reading the run and its data", slow_s=0.01) as say:
        _until(lambda: out.getvalue().count("\n") == 1)
        say("choosing the [blend] on validation")
        _until(lambda: out.getvalue().count("\n") == 2)
    assert out.getvalue() == "reading the run and its data …\nchoosing the [blend] on validation …\n"


def test_quick_steps_are_not_named() -> None:
    out = io.StringIO()
    with steps(Console(file=out), "reading", slow_s=60.0) as say:
        say("writing")
    assert out.getvalue() == ""


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_counted_is_said_at_its_end() -> None:
    out = io.StringIO()
    with counts(Console(file=out), ["item_cf"]) as advance:
        for done in (500, 1000, 1234):
            advance("item_cf", done, 1234)
    assert out.getvalue() == "item_cf: 1,234 of 1,234\n"
