"""Ports, and the loops that live as long as the service."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from service.api import listeners
from service.common.errors import StartupError
from service.process import background
from service.workers import Place
from tests.support.aio import asynchronous

HOST = "127.0.0.1"


def test_the_ports_of_all_workers_are_free_when_the_shared_one_is_taken() -> None:
    with listeners.reserve(HOST, 0, 3) as shared:
        port = shared.getsockname()[1]
        for number in range(3):
            listeners.bind(HOST, port + 1 + number).close()


def test_a_port_of_a_worker_that_is_taken_is_named() -> None:
    with listeners.reserve(HOST, 0, 1) as shared:
        port = shared.getsockname()[1]
        with socket.socket() as taken:
            taken.bind((HOST, port + 1))
            taken.listen()
            with pytest.raises(StartupError, match=rf"cannot listen on {HOST}:{port + 1}"):
                listeners.reserve(HOST, port, 1)


def test_workers_beyond_the_last_port_are_refused() -> None:
    with pytest.raises(StartupError, match="65536"):
        listeners.reserve(HOST, 65535, 1)


@asynchronous
async def test_a_loop_that_breaks_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PAUSE_S", 0.0)
    again, runs = asyncio.Event(), 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError("broken")
        again.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(background._watched(work))
    async with asyncio.timeout(10.0):
        await again.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert (runs, task.cancelled()) == (3, True)


def test_a_worker_is_silent_while_its_beats_stand_still_and_its_supervisor_listens() -> None:
    place = Place(0)
    for beats in (1, 2, 2, 2):
        place.hears(beats, 0.5)
    assert place.silent_s == 1.0
    place.hears(2, 3600.0)  # the machine was asleep
    assert place.silent_s == 2.0
    place.hears(3, 0.5)
    assert place.silent_s == 0.0
