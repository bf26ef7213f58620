"""The queue of the recorder: bounded, in order, and each entry is counted once, whatever becomes of it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.common.metrics import value_of
from service.exposures.entry_queue import BATCH, EntryQueue
from service.store.log_streams import Entry


def entry(subject: str, n: int = 0) -> Entry:
    return ("v", "1", "s", subject, "e", str(n))


@pytest.fixture
def counter() -> Counter:
    return Counter("c", "c", ["outcome"], registry=CollectorRegistry())


def counts(counter: Counter) -> tuple[float, float, float]:
    recorded, dropped, failed = (value_of(counter, name) for name in ("recorded", "dropped", "failed"))
    return recorded, dropped, failed


def test_a_full_queue_drops_unmade(counter: Counter) -> None:
    queue = EntryQueue("exposures", 2, counter)
    made: list[int] = []

    def make(n: int) -> Entry:
        made.append(n)
        return entry("u:1", n)

    for n in range(4):
        queue.add(0, lambda n=n: make(n))  # type: ignore[misc]
    assert (len(queue), made) == (2, [0, 1])
    assert counts(counter) == (0, 2, 0)


def test_an_entry_that_cannot_be_made_counts_as_failed(counter: Counter) -> None:
    queue = EntryQueue("events", 2, counter)
    queue.add(0, lambda: entry(str(1 // 0)))
    assert len(queue) == 0
    assert counts(counter) == (0, 0, 1)


def test_what_must_be_sent_again_comes_first_and_in_its_order(counter: Counter) -> None:
    queue = EntryQueue("events", 10 * BATCH, counter)
    for n in range(BATCH + 3):
        queue.add(n % 2, lambda n=n: entry("u:1", n))  # type: ignore[misc]
    taken = queue.take()
    assert (len(taken), len(queue)) == (BATCH, BATCH + 3)
    assert queue.sent(taken[1:]) == set()
    assert len(queue) == BATCH + 2
    again = queue.take()
    assert [one[5] for _, one in again] == [str(n) for n in range(1, BATCH + 1)]


def test_an_erased_subject_leaves_the_queue_and_is_not_sent_again(counter: Counter) -> None:
    queue = EntryQueue("events", 10 * BATCH, counter)
    for n in range(BATCH + 4):
        queue.add(0, lambda n=n: entry(f"u:{n % 2}", n))  # type: ignore[misc]
    taken = queue.take()
    queue.forget("u:1")
    assert len(queue) == BATCH + 2
    assert queue.sent(taken) == {"u:1"}
    assert {one[3] for _, one in queue.take()} == {"u:0"}
    assert counts(counter)[1] == 2 + BATCH // 2
    queue.give_up()
    assert (len(queue), counts(counter)[2]) == (0, BATCH // 2 + 2)
