"""Data of simulated users with their groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import typer
from typer.testing import CliRunner

from loadtests.simulator import groups
from model.data.dataset import Dataset


def test_groups_are_a_feature_and_differ_in_what_they_like(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(groups.main)
    for name in ("one", "two"):
        done = CliRunner().invoke(
            app, ["--out", str(tmp_path / name), "--users", "40", "--items", "120", "--lists", "8"]
        )
        assert done.exit_code == 0, done.output
    one, two = (Dataset.load(tmp_path / name) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert set(one.users["group"]) == {"group 0", "group 1"}
    clicks = one.events.join(one.users, on="user_id").join(one.items.select("item_id", "category"), on="item_id")
    table = clicks.group_by("group", pl.col("category").list.first()).len()
    counts = table.pivot(on="group", index="category", values="len").fill_null(0).drop("category").to_numpy()
    shares = counts / counts.sum(axis=0)
    assert np.abs(shares[:, 0] - shares[:, 1]).sum() > 0.2
