"""What two trainings of the defaults have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtests.quality.method_criteria import UNCHANGED
from loadtests.quality.unchanged import compared


def written(folder: Path, weight: float, item: int, ndcg: float) -> Path:
    folder.mkdir()
    np.savez(folder / "weights.npz", allow_pickle=False, a=np.ones(3), b=np.full(2, weight))
    np.save(folder / "lists.npy", np.array([[1, 2], [3, item]]))
    np.save(folder / "ndcg.npy", np.full(50, ndcg))
    return folder


def test_equal_trainings_differ_in_nothing_and_others_in_what_they_differ_in(tmp_path: Path) -> None:
    before = written(tmp_path / "before", 1.0, 4, 0.2)
    assert compared(before, written(tmp_path / "same", 1.0, 4, 0.2)) == {
        "weights that differ": 0,
        "share of places of the lists that are equal": 1.0,
        "share of NDCG@10 lost, upper end": 0.0,
    }
    found = compared(before, written(tmp_path / "other", 1.5, 5, 0.19))
    assert found["weights that differ"] == 1
    assert found["share of places of the lists that are equal"] == 0.75
    assert found["share of NDCG@10 lost, upper end"] == pytest.approx(0.05)
    assert set(found) < set(UNCHANGED)
