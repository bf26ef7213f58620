"""Deadlines, keys, background work and the fallback: no server, no engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.access.keys import Access, Keys, presented_secret
from service.api.senders import SENDERS_MAX, Senders
from service.common.deadline import Deadline, Waits, waited
from service.common.errors import SettingsError
from service.common.request_context import RequestContext
from service.common.request_errors import Forbidden, NotFound, Unauthorized
from service.engine.fallback import Constraints, Fallback
from service.signals.user_history import UserHistory
from tests.support.clock import FakeClock
from tests.support.fakes import FakeArtifact

NONE = np.zeros(0, np.int64)


# -- deadline


def test_a_deadline_counts_from_the_beginning_of_the_request() -> None:
    clock = FakeClock(100.0)
    deadline = Deadline.after(0.08, clock, began=99.95)
    assert deadline.remaining() == pytest.approx(0.03)
    assert deadline.keeping(0.01).remaining() == pytest.approx(0.02)
    clock.advance(1.0)
    assert deadline.passed
    assert deadline.remaining() == 0.0


NOW = 1_700_000_000.0


@given(st.lists(st.one_of(st.none(), st.text(max_size=20), st.floats().map(str), st.integers().map(str)), max_size=80))
def test_the_start_header_never_moves_the_beginning_forward(headers: list[str | None]) -> None:
    waits = Waits()
    for header in headers:
        assert 0.0 <= waits.believed(waited(header, epoch_now=NOW)) <= 60.0
        assert waits.quickest >= 0.0


def test_the_start_header_moves_the_beginning_back() -> None:
    for header in ("1699999999900", "t=1699999999900"):
        assert Waits().believed(waited(header, epoch_now=NOW)) == pytest.approx(0.1)


def test_the_start_header_of_a_proxy_that_counts_otherwise_is_understood() -> None:
    for header in ("t=1699999999.900", "1699999999900000"):
        assert waited(header, epoch_now=NOW) == pytest.approx(0.1)


def test_a_start_header_of_another_hour_is_not_believed() -> None:
    waits = Waits()
    for header in ("0", "-5", "1600000000000", "1699996400000", "1700003600000", "nan", "inf", "-inf", "soon"):
        assert waits.believed(waited(header, epoch_now=NOW)) == 0.0


def deadline_in(waits: Waits, wait: float, budget_ms: float) -> float:
    """Seconds left of a request's budget when it arrives, having waited."""
    clock = FakeClock(100.0)
    call = RequestContext("r", clock() - waits.believed(wait), clock(), clock, waits.quickest)
    return call.deadline(budget_ms).remaining()


def test_clocks_that_disagree_by_more_than_a_budget_take_nothing_from_it() -> None:
    """Seconds apart, and what a network adds: after a few answers the header counts for longer budgets only."""
    waits, rng = Waits(), np.random.default_rng(0)
    left = [deadline_in(waits, 5.0 + rng.exponential(0.002), 80.0) for _ in range(200)]
    assert left[0] == 0.0
    assert left[64:] == [pytest.approx(0.08)] * 136
    assert deadline_in(waits, 5.0, 10_000.0) == pytest.approx(5.0)


def test_a_queue_in_front_of_the_service_counts_as_long_as_somebody_does_not_wait() -> None:
    waits = Waits()
    for n in range(500):
        wait = 0.5 if n % 20 else 0.001
        assert deadline_in(waits, wait, 80.0) == pytest.approx(max(0.0, 0.08 - wait))


def test_clocks_that_agree_again_are_believed_again_at_once() -> None:
    waits = Waits()
    for _ in range(100):
        deadline_in(waits, 5.0, 80.0)
    assert deadline_in(waits, 0.03, 80.0) == pytest.approx(0.05)
    assert deadline_in(waits, 5.0, 80.0) == 0.0


def test_a_start_in_the_future_says_nothing_of_how_long_others_waited() -> None:
    waits = Waits()
    for n in range(200):
        wait = deadline_in(waits, 5.0, 80.0)
        assert wait == pytest.approx(0.08) or n < 64
        assert deadline_in(waits, -3.0, 80.0) == pytest.approx(0.08)


def test_a_clock_that_is_hardly_ahead_still_shows_which_requests_wait() -> None:
    waits = Waits()
    for n in range(200):
        wait = 0.2 if n % 8 else -0.002
        assert deadline_in(waits, wait, 80.0) == pytest.approx(0.0 if n % 8 else 0.08)


def test_the_table_of_senders_is_bounded_and_keeps_those_who_still_send() -> None:
    senders = Senders()
    proxy = senders.of({"client": ("10.0.0.1", 1)})
    for n in range(3 * SENDERS_MAX):
        senders.of({"client": (f"2001:db8::{n:x}", n)})
        assert senders.of({"client": ("10.0.0.1", n)}) is proxy
    assert len(senders._known) == SENDERS_MAX
    assert not senders.of({}).trusted


# -- keys


def test_every_entry_of_a_key_list_has_a_name_and_a_secret() -> None:
    for text in ("secret", "name:", ":secret", "a:b:c", "a:b,c:b", "a:b:users:x"):
        with pytest.raises(SettingsError, match="entry") as caught:
            Keys.parse(SecretStr(text), "GPT4REC_API_KEYS", rights=True)
        assert "secret" not in str(caught.value).replace("a secret", "")
    with pytest.raises(SettingsError):
        Keys.parse(SecretStr("a:b:users"), "GPT4REC_OPS_TOKENS", rights=False)


def test_who_may_do_what() -> None:
    api = Keys.parse(SecretStr("shop:k1, crm:k2:users"), "x", rights=True)
    ops = Keys.parse(SecretStr("alice:t1"), "x", rights=False)
    access, nothing = Access(api, ops), Keys({})
    assert access.ops("t1") == "alice"
    access.users("k2")
    with pytest.raises(Forbidden):
        access.users("k1")
    with pytest.raises(Unauthorized):
        access.users(None)
    with pytest.raises(Unauthorized):
        access.api("K1")
    with pytest.raises(NotFound):
        Access(api, nothing).ops("t1")
    with pytest.raises(Forbidden):
        Access(nothing, nothing).users(None)
    with pytest.raises(Unauthorized):
        Access(nothing, ops).users(None)


def test_a_secret_is_read_from_either_header() -> None:
    assert presented_secret("Bearer  s ", "k") == "s"
    assert presented_secret("Basic s", "k") == "k"
    assert presented_secret(None, None) is None


# -- the fallback


def fallback() -> Fallback:
    artifact = FakeArtifact()
    return Fallback(artifact.item_cf, artifact.popularity)


def test_item_cf_is_filled_up_with_popular_items_under_one_exclude_set() -> None:
    listing = fallback().by_history(UserHistory.of_items(np.array([3])), 4, Constraints(None, np.array([0, 5])))
    assert listing.items.tolist() == [4, 1, 2, 3]
    assert listing.source == "item_cf"
    assert np.all(np.diff(listing.scores) <= 0)


def test_a_history_without_neighbours_is_answered_by_popularity() -> None:
    for history in (NONE, np.array([40, -1])):
        assert fallback().by_history(UserHistory.of_items(history), 3, Constraints(None, NONE)).source == "popular"
