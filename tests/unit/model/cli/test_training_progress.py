"""How far a training is, and when it ends."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from model.cli.training_progress import ProgressReport, TimeLeft, as_lines, duration
from model.training.time_limit import TimeLimit
from tests.support.clock import FakeClock


@pytest.mark.parametrize(
    ("left", "step", "elapsed_s", "expected_s"),
    [
        (TimeLeft(steps=100), 25, 10.0, 30.0),  # by the epochs
        (TimeLeft(steps=100, cap_s=20.0), 25, 10.0, 10.0),  # the time is nearer
        (TimeLeft(steps=100, cap_s=600.0), 25, 10.0, 30.0),  # the epochs are nearer
        (TimeLeft(steps=100, first_step=50, before_s=100.0), 60, 10.0, 40.0),  # only its own steps show its speed
        (TimeLeft(steps=100, first_step=50, cap_s=120.0, before_s=100.0), 60, 10.0, 10.0),
        (TimeLeft(steps=100, cap_s=5.0), 25, 10.0, 0.0),  # overdrawn
    ],
)
def test_the_time_left_is_the_nearer_of_epochs_and_time(
    left: TimeLeft, step: int, elapsed_s: float, expected_s: float
) -> None:
    assert left.of(step, elapsed_s) == pytest.approx(expected_s)


@given(st.integers(1, 1000), st.integers(0, 1000), st.none() | st.floats(0.1, 1e4), st.floats(0, 1e4))
def test_the_share_is_one_at_the_end_only(steps: int, step: int, cap_s: float | None, elapsed_s: float) -> None:
    left = TimeLeft(steps, cap_s=cap_s)
    share = left.share(min(step, steps), elapsed_s)
    assert 0.0 <= share <= 1.0
    if share == 1.0:
        assert left.of(min(step, steps), elapsed_s) <= 1e-9 * max(1.0, elapsed_s)


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    clock, out = FakeClock(), io.StringIO()
    progress = SimpleNamespace(epoch=3, seconds=60.0, best_ndcg=0.08125, best_epoch=2)
    trainer = cast("Any", SimpleNamespace(progress=progress, config=SimpleNamespace(max_epochs=10)))
    show = ProgressReport(
        trainer, TimeLimit(5.0, used_s=60.0, clock=clock), as_lines(Console(file=out, width=40), clock), clock
    )
    for done in range(1, 41):  # a batch a second, resumed after three epochs and a minute
        clock.advance(1)
        show(cast("Any", SimpleNamespace(epoch=3, done=done, total=100, loss=5.4321, progress=progress)))
    assert out.getvalue().splitlines() == [
        " 20%  epoch 4  loss 5.432  best NDCG@10 0.0813  1:01 elapsed, 3:59 left",
        " 25%  epoch 4  loss 5.432  best NDCG@10 0.0813  1:16 elapsed, 3:44 left",
        " 30%  epoch 4  loss 5.432  best NDCG@10 0.0813  1:31 elapsed, 3:29 left",
    ]


def test_times_are_written_as_clocks_do() -> None:
    assert [duration(s) for s in (0, 5.4, 65, 3599.6, 7265)] == ["0:00", "0:05", "1:05", "1:00:00", "2:01:05"]
