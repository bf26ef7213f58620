"""The measurement by size of the catalogue: what it compares is comparable, and it runs from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.graphs.decoder import write_decoder
from loadtests.engine.decoder_cases import Graph
from loadtests.engine.scale import measure, ratios
from loadtests.engine.synthetic_artifact import write_synthetic
from loadtests.engine.unconstrained_decoder import free_shape, plain_tables, write_free_decoder
from service.artifact.artifact import Artifact
from service.engine.decode.run_feeds import gap_input
from service.engine.decode.signal_inputs import signal_feeds
from service.signals.item_values import NO_VALUES
from tests.support.networks import random_network, weights_of

WIDTH = 8


@pytest.mark.parametrize(
    "sizes", [(5, 4, 6), (40, 90, 80, 3), (40, 90, 80, 65)], ids=["by token", "rows of tokens", "in CSR form"]
)
def test_both_ways_to_be_without_a_constraint_find_the_same_paths(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    model = random_network(seed=3, n_items=30, sizes=sizes)
    config, weights = model.config, weights_of(model)
    write_decoder(config, weights, tmp_path / "decoder.onnx", "float32")
    write_free_decoder(config, weights, tmp_path / "free.onnx")
    table = model.item_table().detach().numpy()
    given = {
        "context": np.zeros((1, config.n_slots), np.int64),
        "gap": np.array([gap_input(-1)], np.float32),
        "item_table": table,
        "weights": np.array([[1, 0]], np.float32),
        "group": np.zeros((1, 1), np.int64),
        **signal_feeds([NO_VALUES], rows=1, size=1),
        "item_bias": np.zeros(len(table), np.float32),
        "item_path": np.zeros((len(table), config.levels), np.int32),
        "keep_joined": np.ones(1, np.int64),
        "joined_shape": np.array([-1, 1, 1], np.int64),
        "join": np.zeros(1, np.float32),
        "n_items": np.array([config.n_items], np.int64),
        **free_shape(config, WIDTH),
    }
    served = Graph(tmp_path / "decoder.onnx", given | plain_tables(config, WIDTH))
    free = Graph(tmp_path / "free.onnx", given)
    for seed in range(3):
        h = np.random.default_rng(seed).standard_normal((1, config.d_model)).astype(np.float32)
        # The path alone has a weight, so the score is its log-probability.
        ours, theirs = (run(h)["score"] for run in (served, free))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_synthetic_artefact_is_complete(tmp_path: Path) -> None:
    artifact = Artifact.open(write_synthetic(tmp_path, 300, size="tiny"))
    assert artifact.trie.n_items == 300 == len(artifact.catalogue) == artifact.item_cf.n_items
    assert artifact.trie.levels == 4


def test_it_measures_from_end_to_end(tmp_path: Path) -> None:
    sizes = [200, 400]
    for size in sizes:
        write_synthetic(tmp_path, size, size="tiny")
    found = measure(tmp_path, sizes, rounds=1)
    assert set(found["decode_ms"]) == {"200", "400"}
    assert all(ratio > 0 for ratio in ratios(found, sizes))
    assert (found["width"], found["narrow"]) == (64, 16)
    assert {name.split(",")[0] for name in found["step_ms"]} == {"ours", "STATIC"}
    assert found["probes"]["400"]["first use of a filter, ms"] > 0
