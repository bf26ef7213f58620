"""Artefacts of several precisions are compared list by list."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtests.engine.precisions import agreement, measure, same_places
from service.engine.engine import Engine
from service.engine.jobs import DecodedList
from tests.support.artifacts import random_parts, write_artifact
from tests.support.networks import random_network


def listed(*items: int) -> DecodedList:
    zeros = np.zeros(len(items), np.float32)
    return DecodedList(np.array(items), zeros, zeros)


def test_places_are_the_same_where_they_hold_the_same_item() -> None:
    assert same_places([listed(1, 2, 3, 4)], [listed(1, 3, 2, 4)]) == 0.5
    assert same_places([listed(1, 2), listed(3, 4)], [listed(1), listed(3, 4)]) == 0.75


def test_it_measures_from_end_to_end(tmp_path: Path) -> None:
    parts = random_parts(random_network(seed=1))
    engines = {
        dtype: Engine.open(write_artifact(tmp_path / dtype, parts, dtype=dtype), device="cpu", threads=1)
        for dtype in ("float32", "int8")
    }
    found = agreement(engines)
    assert found["float32"] == 1.0
    assert 0.5 < found["int8"] <= 1.0
    rows = measure(engines, rounds=1, batches=[32])
    assert [row[1] for row in rows] == [32, 32]
    assert all(figure > 0 for row in rows for figure in row[2:])
