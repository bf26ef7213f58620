"""An engine ranks by the weights that its artefact was exported with, for each group of users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from service.artifact.artifact import Artifact
from service.engine.decode.ranking import Ranking
from service.signals.ranker import Ranker
from tests.support.artifacts import random_parts, write_artifact


def test_an_engine_takes_weights_and_item_signals_of_each_group_from_the_artefact(tmp_path: Path) -> None:
    parts = random_parts()
    groups = {
        "default": {"path": 0.75, "dense": 0.5, "popularity": -0.25, "trend": 2.0, "transitions": 1.0},
        "warm": {"path": 1.0, "trend": 1.0},
    }
    folder = write_artifact(tmp_path, replace(parts, ranker=replace(parts.weights, groups=groups)))
    artifact = Artifact.open(folder)
    ranking = Ranking.of_artifact(artifact)
    assert ranking.weights.tolist() == [[0.75, 0.5], [1.0, 0.0]]
    values = {signal.name: signal.values for signal in Ranker.of(artifact.signals, artifact.ranker).item_signals}
    counts = np.rint(parts.popularity.share.astype(np.float64) * 500)
    np.testing.assert_allclose(values["popularity"], np.log1p(counts), rtol=1e-6)
    np.testing.assert_allclose(ranking.bias[0], 2 * values["trend"] - 0.25 * values["popularity"], rtol=1e-5)
    np.testing.assert_array_equal(ranking.bias[1], values["trend"])


def test_where_only_path_and_dense_score_have_weights_nothing_else_ranks(tmp_path: Path) -> None:
    ranking = Ranking.of_artifact(
        Artifact.open(write_artifact(tmp_path, random_parts(weights={"path": 0.75, "dense": 0.25})))
    )
    assert ranking.weights.tolist() == [[0.75, 0.25]]
    assert not ranking.bias.any()
