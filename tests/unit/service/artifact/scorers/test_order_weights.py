"""The file of an order model: it comes back as it was written, and anything else is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.scorers.order_weights import OrderWeights
from service.artifact.scorers.scorer_files import ScorerFileError
from tests.support.orders import order_weights


@pytest.mark.parametrize("method", ["expected_reward", "policy"])
def test_an_order_model_comes_back_as_it_was_written(method: Any, tmp_path: Path) -> None:
    written = replace(order_weights(), method=method)
    written.save(tmp_path / "order.npz")
    read = OrderWeights.load(tmp_path / "order.npz")
    assert (read.method, read.leave, read.weights) == (method, written.leave, written.weights)
    for name in ("examination", "scale", "item", "value", "group", "follows"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order_format": np.int64(2)}, "format 2, this version reads 1; learn the order again"),
        ({"kind": np.str_("order_other")}, "no order of a kind"),
        ({"examination": np.array([1.0, 1.5])}, "a look"),
        ({"leave": np.float64(2)}, "leaving"),
        ({"value": np.zeros(3, np.float32)}, "differ in length"),
        ({"item": np.full(6, np.nan, np.float32)}, "not finite"),
        ({"group": np.full(6, 9, np.int32)}, "no row in follows"),
        ({"examination": np.zeros((2, 2))}, "axes"),
    ],
)
def test_another_file_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "order.npz"
    order_weights().save(file)
    save_arrays(file, **{**map_arrays(file), **change})
    with pytest.raises(ScorerFileError, match=message):
        OrderWeights.load(file)
    file.write_bytes(b"not an archive")
    with pytest.raises(ScorerFileError, match="damaged"):
        OrderWeights.load(file)
