"""The file of a user's own items: what it holds, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.scorer_files import ScorerFileError, save_scorer


@pytest.mark.parametrize("rates", [None, np.array([0.25, 1.0, 0.5], np.float32)])
def test_parameters_are_read_back(tmp_path: Path, rates: np.ndarray | None) -> None:
    OwnItems(3, 0.75, rates).save(tmp_path / "own.npz")
    read = OwnItems.load(tmp_path / "own.npz")
    assert (read.n_items, read.decay) == (3, 0.75)
    assert (read.repurchase is None) == (rates is None)
    assert rates is None or (read.repurchase is not None and read.repurchase.tolist() == rates.tolist())


@pytest.mark.parametrize("rates", [[0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 1.5, 0.5]])
def test_rates_that_do_not_fit_are_refused(tmp_path: Path, rates: list[float]) -> None:
    arrays = {"n_items": np.int64(3), "decay": np.float64(0.75), "repurchase": np.array(rates, np.float32)}
    save_scorer(tmp_path / "own.npz", "own_items", **arrays)
    with pytest.raises(ScorerFileError, match="repurchase rate"):
        OwnItems.load(tmp_path / "own.npz")
