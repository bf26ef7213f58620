"""The queue of the recorder: bounded, in order, and each entry is counted once, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.exposures.entry_queue import BATCH, EntryQueue, Waiting
from service.metrics.service_metrics import value_of
from service.store.records import Subject
from service.store.streams.log_streams import Entry


def waiting(user: str, n: int = 0, made: list[int] | None = None) -> Waiting:
    def make() -> Entry:
        if made is not None:
            made.append(n)
        return ("v", "1", "s", f"u:{user}", "e", str(n))

    return Subject("user", user), "", make


def numbers(queue: EntryQueue, taken: Sequence[Waiting]) -> list[str]:
    entries = [made[2] for one in taken if (made := queue.made(one)) is not None]
    return [str(entry[5]) for entry in entries if isinstance(entry, tuple)]


@pytest.fixture
def counter() -> Counter:
    return Counter("c", "c", ["outcome"], registry=CollectorRegistry())


def counts(counter: Counter) -> tuple[float, float, float]:
    recorded, dropped, failed = (value_of(counter, name) for name in ("recorded", "dropped", "failed"))
    return recorded, dropped, failed


def test_a_full_queue_drops_unmade_and_what_is_taken_is_made_once(counter: Counter) -> None:
    queue = EntryQueue("exposures", 2, counter)
    made: list[int] = []
    assert [queue.add(waiting("1", n, made)) for n in range(4)] == [1, 2, 2, 2]
    assert (len(queue), made) == (2, [])
    assert counts(counter) == (0, 2, 0)
    again = [one for waits in queue.take() if (one := queue.made(waits)) is not None]
    queue.sent(again)
    assert numbers(queue, queue.take()) == ["0", "1"]
    assert made == [0, 1]


def test_an_entry_that_cannot_be_made_counts_as_failed(counter: Counter) -> None:
    queue = EntryQueue("events", 2, counter)
    queue.add((None, "l", lambda: ("v", str(1 // 0))))
    (one,) = queue.take()
    assert queue.made(one) is None
    assert counts(counter) == (0, 0, 1)


def test_the_newest_are_made_once_in_their_order(counter: Counter) -> None:
    queue = EntryQueue("exposures", 10 * BATCH, counter)
    made: list[int] = []
    for n in range(3):
        queue.add(waiting("1", n, made))
    queue.add((None, "l", lambda: ("v", str(1 // 0))))
    queue.make_newest()
    assert made == [0, 1, 2]
    assert (len(queue), counts(counter)) == (3, (0, 0, 1))
    queue.add(waiting("1", 3, made))
    queue.make_newest()
    assert made == [0, 1, 2, 3]
    queue.sent(queue.take()[1:])
    assert numbers(queue, queue.take()) == ["1", "2", "3"]
    assert made == [0, 1, 2, 3]


def test_what_must_be_sent_again_comes_first_and_in_its_order(counter: Counter) -> None:
    queue = EntryQueue("events", 10 * BATCH, counter)
    for n in range(BATCH + 3):
        queue.add(waiting("1", n))
    taken = queue.take()
    assert (len(taken), len(queue)) == (BATCH, BATCH + 3)
    assert queue.sent(taken[1:]) == set()
    assert len(queue) == BATCH + 2
    assert numbers(queue, queue.take()) == [str(n) for n in range(1, BATCH + 1)]


def test_an_erased_subject_leaves_the_queue_and_is_not_sent_again(counter: Counter) -> None:
    queue = EntryQueue("events", 10 * BATCH, counter)
    for n in range(BATCH + 4):
        queue.add(waiting(str(n % 2), n))
    taken = queue.take()
    queue.forget("u:1")
    assert len(queue) == BATCH + 2
    assert queue.sent(taken) == {"u:1"}
    assert {subject for subject, _, _ in queue.take()} == {Subject("user", "0")}
    assert counts(counter)[1] == 2 + BATCH // 2
    queue.give_up()
    assert (len(queue), counts(counter)[2]) == (0, BATCH // 2 + 2)
