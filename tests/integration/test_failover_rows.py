"""Two rows of the fail-over table, in short: one of a cluster, and one in which the network is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.fleet.failover import tried_alone
from loadtests.fleet.failover_rows import NAMES
from loadtests.harness import places, redis_programs

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]


def kept(name: str, artifact: Path) -> dict[str, Any]:
    entry = tried_alone(NAMES[name], artifact, redis_programs.DEFAULT, quick=True)
    assert entry["events"] > 200
    assert (entry["beyond"], entry["twice"], entry["5xx"], entry["unanswered"]) == (0, 0, 0, 0), entry
    return entry


def test_a_cluster_whose_primary_is_killed_loses_nothing_that_its_replica_acknowledged(random_artifact: Path) -> None:
    assert kept("cluster, primary killed, replica", random_artifact)["lost"] == 0


@pytest.mark.skipif(not places.possible(), reason="this machine lets no process have a network of its own")
def test_a_service_that_is_cut_off_with_an_old_primary_acknowledges_nothing(random_artifact: Path) -> None:
    assert kept("cluster, service cut off, replica", random_artifact)["lost"] == 0
