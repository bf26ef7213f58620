"""From a trained network to a sealed artefact folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.graphs.candidates import dense_by_rule
from export.graphs.decoder import write_decoder
from export.graphs.encoder import write_encoder
from export.graphs.explainer import write_explainer
from export.graphs.graph_writer import OPSET, GraphDtype
from export.graphs.history_encoder import write_history_encoder
from export.graphs.history_explainer import write_history_explainer
from export.graphs.sampler import write_sampler
from export.graphs.step_encoder import write_step_graphs
from export.graphs.user_encoder import write_user_encoder
from export.measure_sizes import Measured
from export.parity_gate import GateResult, Probe, Quality, check
from export.publish import publish, seal, staging
from export.signing import Sign
from model.network.encoders.registry import reads_context, receptive_field, state_layout, streams
from model.network.gpt4rec import GPT4Rec
from model.tokenizers.tokenizer import Tokenizer
from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.artifact import Artifact
from service.artifact.features import ContextVocabulary, Vocabulary
from service.artifact.graphs.cells import CELLS_FILE, Cells
from service.artifact.graphs.encoder_version import EncoderVersion
from service.artifact.graphs.run_sizes import ENTRY as RUN_SIZES
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.item_attributes import ROWS as ITEM_ATTRIBUTES
from service.artifact.items.item_attributes import AttributeVocabulary
from service.artifact.manifest import EXPLAINER, TOGETHER_FILE
from service.artifact.query_text import KnownQueries
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE_ALONE, RankerWeights
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY, SignalPart, signal_file
from service.artifact.trie import Trie
from service.engine.engine import Engine
from service.watch.baseline import ENTRY as WATCH_BASELINE
from service.watch.baseline import WatchBaseline

# The backbone whose graphs with a state are written by hand.
OWN = "gpt4rec"


@dataclass(frozen=True)
class Parts:
    """Everything an artefact is made of.

    Attributes:
        name: The first part of the model version.
        signals: What the other signals were fitted to, by name.
        ranker: Weights of all signals; None: the dense score ranks alone.
        about: Further entries of the manifest (data range, offline metrics, …).
        encoder_counts: Numbers of items that the encoder knew at each of its steps, the last of them all; empty: it
            has one.
        dense: Whether the graphs score the whole catalogue (`export.graphs.candidates`); None: by its size.
        cells: The cells that the graphs score instead (`export.graphs.cell_candidates`); None: no cells.
        together: What is taken together in one basket; None if no basket has two items.
        attributes: The attributes of items that the encoder knows; None if it reads none.
        known_queries: The queries that the network has vectors of; None if it has none.
    """

    name: str
    model: GPT4Rec
    tokenizer: Tokenizer
    catalogue: Catalogue
    context: ContextVocabulary
    item_cf: ItemCF
    popularity: Popularity
    signals: Mapping[str, SignalPart] = field(default_factory=dict)
    ranker: RankerWeights | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    encoder_counts: Sequence[int] = ()
    dense: bool | None = None
    cells: Cells | None = None
    attributes: AttributeVocabulary | None = None
    together: NeighbourTable | None = None
    known_queries: KnownQueries | None = None

    @property
    def dense_candidates(self) -> bool:
        """Whether the graphs score the whole catalogue."""
        by_rule = self.cells is None and dense_by_rule(len(self.catalogue))
        return by_rule if self.dense is None else self.dense

    @property
    def all_signals(self) -> Mapping[str, SignalPart]:
        """What every signal was fitted to, by name."""
        return {ITEM_CF: self.item_cf, POPULARITY: self.popularity, **self.signals}

    @property
    def weights(self) -> RankerWeights:
        """The weights of the signals."""
        return self.ranker or RankerWeights(tuple(self.all_signals), {DEFAULT_GROUP: DENSE_ALONE})

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the artefact's reader will build."""
        c = self.model.config
        ids, known = self.catalogue.item_ids, self.known_queries
        return Vocabulary.of(
            ids, self.context, c.has_time, c.n_types, c.query_buckets, known, reads_sessions=c.session_ids
        )  # fmt: skip


class ParityError(RuntimeError):
    """The exported graphs do not agree with the network; nothing was published. The message says what differs."""


def export(
    parts: Parts,
    root: Path,
    dtype: GraphDtype,
    probes: Sequence[Probe],
    quality: Quality | None = None,
    *,
    latest: bool = False,
    sign: Sign | None = None,
    measured: Callable[[Engine], Measured] | None = None,
    watched: Callable[[Engine], WatchBaseline] | None = None,
) -> tuple[Path, GateResult]:
    """Writes, checks and publishes an artefact.

    Args:
        parts: What the artefact is made of.
        root: Folder of artefacts.
        dtype: Precision of the graphs.
        probes: Histories that the parity gate compares on.
        quality: NDCG@10 that graphs which round must keep.
        latest: Whether to point `latest` at the artefact although it names another one.
        sign: Signs the artefact; None leaves it unsigned.
        measured: Finds which runs of the engine may be narrower than planned; None: none is.
        watched: Finds what the service compares lists and traffic with; None: nothing.

    Returns:
        The artefact's folder and the gate's result.

    Raises:
        ParityError: The engine over the written files does not reproduce the network and the reference decoder.
            Nothing is published.
    """
    with staging(root) as folder:
        write(parts, folder, dtype)
        result = check(parts.model, Artifact.open(folder), probes, dtype, quality)
        if result.failures:
            raise ParityError("the exported graphs differ from the network:\n  " + "\n  ".join(result.failures))
        about: dict[str, Any] = {"parity": result.to_json()}
        engine = Engine(Artifact.open(folder), device="cpu")
        if measured is not None:
            sizes = measured(engine)
            about[RUN_SIZES] = sizes.to_json()
            engine.set_run_sizes(sizes.sizes)
        if watched is not None:
            about[WATCH_BASELINE] = watched(engine).to_json()
        seal(folder, _manifest(parts, dtype, folder) | about, parts.name)
        return publish(folder, root, latest=latest, sign=sign), result


def write(parts: Parts, folder: Path, dtype: GraphDtype) -> None:
    """Writes and seals all files of an artefact in `folder`; the parity gate is left to the caller."""
    model = parts.model.eval()
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    if model.config.encoder != OWN and streams(model.config):
        write_step_graphs(model, folder / "encoder.onnx", folder / EXPLAINER, dtype)
    elif streams(model.config):
        write_encoder(model.config, weights, folder / "encoder.onnx", dtype)
        write_explainer(model.config, weights, folder / EXPLAINER, dtype)
    elif reads_context(model.config):
        write_user_encoder(model.config, weights, folder / "encoder.onnx", dtype)
    else:
        write_history_encoder(model.config, weights, folder / "encoder.onnx", dtype)
    if not streams(model.config):
        write_history_explainer(model.config, weights, folder / EXPLAINER, dtype)
    proposed = {"dense": parts.dense_candidates, "cells": parts.cells is not None}
    write_decoder(model.config, weights, folder / "decoder.onnx", dtype, **proposed)
    write_sampler(model.config, weights, folder / "sampler.onnx", dtype, **proposed)
    if parts.cells is not None:
        parts.cells.save(folder / CELLS_FILE)
    Trie.build(parts.tokenizer.codes).save(folder / "trie.npz")
    with torch.no_grad():
        table = model.item_table().cpu().numpy().astype(np.float32)
    save_arrays(folder / "items.npz", item_table=table, **_attribute_arrays(parts))
    parts.catalogue.save(folder / "catalogue.npz")
    parts.tokenizer.save(folder)
    if parts.known_queries is not None:
        parts.known_queries.save(folder)
    save_signals(folder, parts.all_signals)
    if parts.together is not None:
        parts.together.save(folder / TOGETHER_FILE)
    seal(folder, _manifest(parts, dtype, folder), parts.name)


def _attribute_arrays(parts: Parts) -> dict[str, Any]:
    """Returns the arrays of what the encoder reads beside items; none if it reads nothing."""
    of_items = parts.model.attributes
    if of_items is None or parts.attributes is None:
        return {}
    return parts.attributes.arrays(of_items.table().cpu().numpy())


def save_signals(folder: Path, signals: Mapping[str, SignalPart]) -> None:
    """Writes the file of each signal, by name."""
    for name, part in signals.items():
        part.save(folder / signal_file(name))


def _manifest(parts: Parts, dtype: GraphDtype, folder: Path) -> dict[str, Any]:
    config, ids = parts.model.config, parts.catalogue.item_ids
    arrays, counts = map_arrays(folder / "items.npz"), parts.encoder_counts or (len(ids),)
    read = (folder / "encoder.onnx", ids, arrays["item_table"], counts, arrays.get(ITEM_ATTRIBUTES))
    return {
        "streaming": streams(config),
        "receptive_field": receptive_field(config),
        "encoder_reads_features": reads_context(config),
        "state": state_layout(config).to_json(),
        "encoder": EncoderVersion.of(*read).to_json(),
        "network": config.to_json(),
        "context": parts.context.to_json(),
        "has_time": config.has_time,
        "tokenizer": parts.tokenizer.kind,
        "dtype": dtype,
        "opset": OPSET,
        "ranker": parts.weights.to_json(),
        "dense_candidates": parts.dense_candidates,
        "cell_candidates": None if parts.cells is None else {"level": parts.cells.level, "rows": parts.cells.rows},
        **parts.about,
    }
