"""The bytes of unanswered requests have one bound, and the slowest senders pay for it."""

from __future__ import annotations

import random

import pytest

from service.api.unanswered_bytes import Held, UnansweredBytes
from service.common.errors import ServiceError
from service.metrics.service_metrics import Metrics, value_of
from tests.support.clock import FakeClock

MOST = 1_000_000


class Senders:
    """Connections by name, and the errors with which they were ended."""

    def __init__(self) -> None:
        self.clock, self.metrics = FakeClock(), Metrics()
        self.all = UnansweredBytes(MOST, self.metrics, self.clock)
        self.ended: dict[str, int] = {}

    def connect(self, name: str) -> Held:
        def refuse(error: ServiceError) -> None:
            self.ended[name] = error.status

        return self.all.connection(refuse)

    def send(self, name: str, size: int, *, partial: bool = True) -> Held:
        held = self.connect(name)
        held.add(size, partial=partial)
        return held


def test_the_sum_never_stays_above_its_bound_whatever_is_sent() -> None:
    senders, chance = Senders(), random.Random(1)
    open_ = [senders.connect(str(number)) for number in range(50)]
    for _ in range(20_000):
        held = chance.choice(open_)
        senders.clock.advance(chance.random() / 100)
        match chance.randrange(10):
            case 0:
                held.release()
            case 2:
                held.wait_for_reader(chance.randrange(100_000))
            case 3:
                held.read()
            case 1:
                held.close()
                open_[open_.index(held)] = senders.connect("new")
            case _:
                held.add(chance.randrange(100_000), partial=chance.random() < 0.9)
        assert senders.all.total == sum(held.size for held in open_)
        assert senders.all.total <= MOST
    assert senders.ended


def test_who_held_most_for_longest_goes_first_and_others_stay() -> None:
    senders = Senders()
    senders.send("large", 600_000)
    senders.send("small", 2_000)
    senders.clock.advance(3.0)
    fresh = senders.send("fresh", 300_000)
    fresh.add(150_000, partial=True)
    assert senders.ended == {"large": 408}
    assert senders.all.total < 0.75 * MOST


def test_an_answer_that_nobody_reads_is_held_too_and_ended() -> None:
    senders = Senders()
    held = senders.send("deaf", 1_000, partial=False)
    held.wait_for_reader(900_000)
    held.release()
    assert senders.all.total == 900_000
    senders.clock.advance(2.0)
    senders.send("other", 200_000)
    assert senders.ended == {"deaf": 408}
    again = senders.send("reads", 0, partial=False)
    again.wait_for_reader(500_000)
    again.read()
    again.release()
    assert again.size == 0


def test_without_slow_senders_the_newest_that_holds_much_is_told_to_come_again() -> None:
    senders = Senders()
    for number in range(9):
        senders.send(f"here {number}", 100_000, partial=False)
    senders.send("small", 10_000, partial=False)
    senders.send("more", 200_000, partial=False)
    assert senders.ended == {"more": 503}
    senders.send("probe", 500, partial=False)
    assert "probe" not in senders.ended


@pytest.mark.parametrize(("age_s", "reason"), [(2.0, "too_slow"), (0.0, "too_many_bodies")])
def test_every_end_is_counted_with_its_reason(age_s: float, reason: str) -> None:
    senders = Senders()
    senders.send("first", 900_000)
    senders.clock.advance(age_s)
    senders.send("second", 50_000).add(60_000, partial=True)
    assert value_of(senders.metrics.bodies_refused.labels(reason)) >= 1
    assert senders.metrics.registry.get_sample_value("gpt4rec_unanswered_bytes") == senders.all.total


def test_a_body_in_tiny_segments_is_no_way_to_hold_more() -> None:
    senders = Senders()
    held = senders.send("drops", 1)
    for _ in range(MOST // 50):
        held.add(1, partial=True)
    assert senders.ended == {"drops": 503}
