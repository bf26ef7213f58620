"""The queue behind the answers: bounded, one entry of a kind for each subject, awake when there is work."""

from __future__ import annotations

import asyncio

from service.history.profile import Profile
from service.history.write_queue import WriteQueue
from service.lifecycle.served_model import ServedModel
from service.store.records import Subject, UserRecord
from tests.support.aio import asynchronous

MODEL = ServedModel.__new__(ServedModel)  # the queue only passes it on


def user(n: int) -> Subject:
    return Subject("user", str(n))


def profile(n: int) -> Profile:
    return Profile(user(n), MODEL, UserRecord("", ()))


def test_a_full_queue_takes_no_further_history_but_every_state() -> None:
    queue = WriteQueue(2)
    assert [queue.add_history(user(n), MODEL) for n in (1, 2, 3)] == [True, True, False]
    assert queue.add_history(user(1), MODEL)
    for n in range(3):
        queue.add_state(profile(n))
    assert len(queue) == 5


def test_a_batch_is_the_oldest_entries_and_a_newer_state_takes_the_place_of_an_older() -> None:
    queue = WriteQueue(100)
    for n in range(20):
        queue.add_history(user(n), MODEL)
    first, second = queue.take_histories(), queue.take_histories()
    assert [*first, *second] == [user(n) for n in range(20)]
    older, newer = profile(1), profile(1)
    queue.add_state(older)
    queue.add_state(newer)
    assert queue.take_states() == [newer]
    assert len(queue) == 0


def test_batches_grow_with_what_waits_up_to_a_bound() -> None:
    queue = WriteQueue(2000)
    for n in range(1000):
        queue.add_history(user(n), MODEL)
        queue.add_state(profile(n))
    sizes = []
    while taken := queue.take_states():
        sizes.append(len(taken))
    assert (sum(sizes), max(sizes), sizes[-2]) == (1000, 64, 16)
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert len(queue.take_histories()) == 64


@asynchronous
async def test_waiting_ends_when_something_is_queued_and_a_discarded_subject_is_gone() -> None:
    queue = WriteQueue(2)
    waiting = asyncio.ensure_future(queue.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add_history(user(1), MODEL)
    queue.add_state(profile(1))
    await asyncio.wait_for(waiting, 5)
    queue.discard(user(1))
    assert len(queue) == 0 and not queue.take_histories() and not queue.take_states()
