"""The comparison of two commits: what it counts, and which checkout a server comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.engine.before_after import highest_held, middle_ratio, same_places, share
from loadtests.harness.checkout import Checkout, CheckoutError
from loadtests.harness.served_process import REPOSITORY, free_port


def test_a_place_counts_only_if_it_holds_the_same_item() -> None:
    before = {"ann": ["a", "b", "c"], "bob": ["a", "b"]}
    after = {"ann": ["a", "c", "b"], "bob": ["a", "b", "c"]}
    found = {"beam 5": same_places(before, after)}
    assert found == {"beam 5": {"places": 6, "same": 3}}
    assert share(found) == 50.0


def test_rounds_in_which_nothing_held_before_are_left_out() -> None:
    rounds = [{"before": {"rate": rate}, "after": {"rate": 300.0}} for rate in (0.0, 100.0, 200.0, 150.0)]
    assert middle_ratio(rounds) == 2.0
    with pytest.raises(ValueError, match="too busy"):
        middle_ratio(rounds[:1])


def test_a_rate_that_failed_when_it_was_to_be_confirmed_has_not_held() -> None:
    steps = [(100.0, None), (200.0, "slow"), (150.0, None), (150.0, "slow"), (200.0, "slow"), (120.0, None)]
    assert highest_held(steps) == 120.0
    assert highest_held(steps[1:2]) == 0.0


def test_a_server_comes_from_its_checkout_and_gets_only_settings_that_it_knows(tmp_path: Path) -> None:
    here = Checkout(REPOSITORY)
    assert here.environment()["PYTHONPATH"] == str(REPOSITORY)
    asked = {"GPT4REC_PORT": "1", "GPT4REC_NEVER_HEARD": "0"}
    assert here.known(asked) == {"GPT4REC_PORT": "1", "GPT4REC_NEVER_HEARD": ""}
    with pytest.raises(CheckoutError, match="no checkout"):
        Checkout(tmp_path).environment()


def test_ports_above_a_free_one_are_free_too() -> None:
    assert free_port(3) + 2 <= 65535
