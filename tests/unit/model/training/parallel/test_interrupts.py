"""Signals are noted while a training watches for them, and act as before afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from model.training.parallel.interrupts import Interrupts


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A process in the background of a shell ignores SIGINT, and so do the tests in it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_noted_and_the_second_one_acts() -> None:
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.watching():
        assert not interrupts.noted
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.noted
        os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_are_handled_as_before() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with Interrupts().watching():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
