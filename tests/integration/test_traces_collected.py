"""Two roles as processes, and a collector in others: a trace goes through all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.fleet.traces import both_roles, faults, send
from loadtests.harness.collector import collector
from service.artifact.artifact import Artifact

pytestmark = pytest.mark.fleet


def test_requests_across_two_roles_are_whole_traces_in_a_collector(random_artifact: Path, tmp_path: Path) -> None:
    item = str(Artifact.open(random_artifact).catalogue.item_ids[0])
    with collector(tmp_path / "collector") as collected, both_roles(random_artifact, collected, tmp_path) as served:
        sent = send(served.url, item, 5)
        assert faults(collected, sent) == {}
