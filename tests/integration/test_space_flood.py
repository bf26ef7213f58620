"""Spaces that crowd each other: a short flood on one in a real process, and models that make room."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.fleet import evicted, flood


@pytest.mark.fleet
def test_a_flood_on_one_space_fails_no_request_of_another(random_artifact: Path) -> None:
    with flood.two_spaces(random_artifact, GPT4REC_INFLIGHT_MAX="8", GPT4REC_DEVICE="cpu") as served:
        found = flood.pair(served, 1, seconds=2.0, quiet=20.0, flood=600.0, connections=64)
        assert served.alive()
    assert found["failed"] == 0.0
    assert found["server_errors"] == 0.0
    assert found["unanswered"] == 0.0
    assert found["full_share"] > 0.0
    assert found["lists_a_second"] > 0.0


@pytest.mark.fleet
def test_models_that_are_evicted_give_memory_back(random_artifact: Path) -> None:
    found = evicted.measure(random_artifact, models=6, kept=1)
    assert found["an evicted model gives back"] > 0.0
