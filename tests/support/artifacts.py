"""A complete small artefact around a random network, written by the export's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export.artifact_writer import Parts, write
from export.graphs.graph_writer import GraphDtype
from export.learn_ranker import LearnedRanker
from export.publish import publish, staging
from model.network.gpt4rec import GPT4Rec
from model.tokenizers.atomic import AtomicTokenizer
from service.artifact.features import ContextVocabulary
from service.artifact.graphs.cells import Cells
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE, DENSE_ALONE, PATH, RankerWeights, Weights
from service.artifact.trie import Trie
from tests.support.networks import random_catalogue, random_network

HALF_AND_HALF: Weights = {PATH: 0.5, DENSE: 0.5}


def random_parts(model: GPT4Rec | None = None, *, seed: int = 0, weights: Mapping[str, float] = HALF_AND_HALF) -> Parts:
    """Parts of an artefact that ranks by these weights; the model's codes become the tokenizer's."""
    model = model or random_network(seed=seed)
    rng = np.random.default_rng(seed)
    n = model.config.n_items
    context = ContextVocabulary(
        fields=("age",), values={"age": {"old": 1, "young": 2}, "category": {"a": 3, "b": 4, "c": 5}},
        max_gap_ms=30 * 86_400_000,
    )  # fmt: skip
    neighbour = np.stack([rng.permutation(np.delete(np.arange(n), i))[:8] for i in range(n)]).astype(np.int32)
    similarity = -np.sort(-rng.uniform(0.1, 1.0, neighbour.shape)).astype(np.float32)
    tokenizer = AtomicTokenizer(model.codes.numpy(), model.config.code_sizes)
    parts = Parts(
        name="random",
        model=model,
        tokenizer=tokenizer,
        catalogue=random_catalogue(rng, n),
        context=context,
        item_cf=ItemCF(neighbour, similarity, 0.9),
        popularity=Popularity.fit(rng.integers(0, n, 500), n),
        signals={
            "transitions": NeighbourTable(neighbour[:, ::-1].copy(), similarity, 0.8, 10),
            "repeat": OwnItems(n, 0.995),
            "trend": ItemColumn(rng.normal(size=n).astype(np.float32)),
        },
    )
    return replace(parts, ranker=RankerWeights(tuple(parts.all_signals), {DEFAULT_GROUP: weights}))


def with_cells(parts: Parts, rows: int) -> Parts:
    """The same parts, whose graphs read so many items of the best cells."""
    trie, table = Trie.build(parts.tokenizer.codes), parts.model.item_table().detach().numpy()
    return replace(parts, dense=False, cells=Cells.build(trie, table, rows=rows))


def write_artifact(root: Path, parts: Parts | None = None, dtype: GraphDtype = "float32", **kw: Any) -> Path:
    """Publishes an artefact without the parity gate, and returns its folder."""
    with staging(root) as folder:
        write(parts or random_parts(**kw), folder, dtype)
        return publish(folder, root, latest=True)


def learn_nothing(parts: Parts, *_: Any, **__: Any) -> LearnedRanker:
    """Takes the place of `learn_ranker` where weights do not matter: the dense score alone ranks."""
    weights = RankerWeights(tuple(parts.all_signals), {DEFAULT_GROUP: DENSE_ALONE})
    return LearnedRanker(weights, {"learned": False, "answered": 0, "weights": dict(DENSE_ALONE)})
