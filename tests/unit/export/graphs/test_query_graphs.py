"""Vectors of known queries in the graphs: as torch reads them, known again in the artefact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from export import artifact_writer
from export.parity_gate import Probe
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encoder_input
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays, Vocabulary
from service.artifact.manifest import ArtifactFileError
from service.artifact.query_text import KnownQueries
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from tests.support.artifacts import random_parts, write_artifact
from tests.support.networks import random_network

KNOWN = ("green tea", "lamp")


def network() -> GPT4Rec:
    model = random_network(encoder="sasrec", window=8, scale=1.5, query_buckets=64, n_known_queries=len(KNOWN))
    assert model.known_query is not None
    model.known_query.vectors.copy_(torch.nn.functional.normalize(torch.randn(len(KNOWN), 384)))
    return model


def asked(vocabulary: Vocabulary, query: str) -> EventArrays:
    return vocabulary.events(["i1", "", "i2"], ["view", "search", "view"], [1000, 2000, 3000], [None, query, None])


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_graphs_read_known_queries_as_torch_does_and_the_artefact_knows_them_again(
    tmp_path: Path, dtype: Literal["float32", "float16"]
) -> None:
    model = network()
    parts = replace(random_parts(model), known_queries=KnownQueries.of(KNOWN))
    texts = ("Green TEA", "lamp", "green teas")
    probes = [Probe(asked(parts.vocabulary, text)) for text in texts]
    folder, result = artifact_writer.export(parts, tmp_path, dtype, probes)
    assert result.failures == []
    engine = Engine(Artifact.open(folder), device="cpu", threads=1)
    vocabulary = engine.artifact.vocabulary
    for text in texts:
        events = asked(vocabulary, text)
        [state] = engine.encode([EncodeJob(events=events, from_start=True)])
        seen = encoder_input(events, 8, vocabulary)
        assert seen.query is not None
        item, kind, time_ms, query = (
            torch.from_numpy(a)[None] for a in (seen.item, seen.type, seen.time_ms, seen.query)
        )
        assert int((query > 64).sum()) == int(text != "green teas")
        h = model.encode(item, kind, time_ms, torch.tensor([len(seen)]), query=query)[0]
        without = model.encode(item, kind, time_ms, torch.tensor([len(seen)]), query=torch.where(query > 64, 0, query))[
            0
        ]
        assert isinstance(state, EncoderState)
        assert state.h == pytest.approx(h.numpy(), abs=1e-4 if dtype == "float32" else 0.05)
        assert torch.equal(h, without) == (text == "green teas"), "what is not known is read by its n-grams"


def test_an_artefact_with_the_queries_of_another_network_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    parts = replace(random_parts(network()), known_queries=KnownQueries.of(["tea"]))
    folder = write_artifact(tmp_path, parts)
    with pytest.raises(ArtifactFileError, match=r"queries\.npz cannot be used"):
        Artifact.open(folder)
