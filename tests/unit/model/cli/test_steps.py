"""Where a long command is, without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from model.cli.steps import counts, steps


def test_each_step_is_a_line() -> None:
    out = io.StringIO()
    with steps(Console(file=out, width=20), "reading the run and its data") as say:
        say("choosing the [blend] on validation")
    assert out.getvalue() == "reading the run and its data …\nchoosing the [blend] on validation …\n"


def test_what_is_counted_is_said_at_its_end() -> None:
    out = io.StringIO()
    with counts(Console(file=out), ["item_cf"]) as advance:
        for done in (500, 1000, 1234):
            advance("item_cf", done, 1234)
    assert out.getvalue() == "item_cf: 1,234 of 1,234\n"
