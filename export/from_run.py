"""Exports a run folder as a published artefact: signals, their weights, graphs, parity gate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.artifact_writer import ParityError, Parts, export, write
from export.choose_candidates import Wanted, with_candidates
from export.choose_candidates import note as note_on_candidates
from export.graphs import history_encoder, user_encoder
from export.graphs.graph_writer import GraphDtype
from export.learn_ranker import learn_ranker
from export.measure_sizes import Measured, forced_width, measure_sizes
from export.parity_gate import GateResult, Probe, Quality
from export.publish import staging
from export.signing import Sign
from export.watch_baseline import watch_baseline
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.long_histories import ITEM_CF_EVENTS, note_on_long
from model.data.query_histories import history_events
from model.data.split import Split
from model.errors import LearningError, RunError
from model.evaluation.baselines import Baselines, fit_baselines
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import engine_ranker
from model.network.encoders.registry import streams
from model.network.gpt4rec import GPT4Rec
from model.signals.cold_items import ColdItems
from model.signals.data import SignalData
from model.signals.registry import fit_signals
from model.signals.together import together_table
from model.training.content_vectors import content_vectors
from model.training.increment.start import cold_vectors, kept_counts, kept_items
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.artifact.features import EVENT_TYPES, EventArrays
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem, categories_of
from service.artifact.manifest import ArtifactFileError
from service.common.errors import ServiceError
from service.engine.decoding import Decoding
from service.engine.engine import Engine

QUALITY_USERS = 2000
PROBES = 24

Say = Callable[[str], None]


class ExportError(RuntimeError):
    """The artefact was not published; the message gives the reason."""


def export_run(
    folder: Path,
    out: Path,
    dtype: GraphDtype,
    data: Path | None = None,
    *,
    latest: bool = False,
    sign: Sign | None = None,
    width: int | None = None,
    candidates: Wanted = "measured",
    say: Say = lambda _: None,
) -> tuple[Path, dict[str, Any]]:
    """Exports a training run.

    Args:
        folder: The run folder.
        out: Folder of artefacts.
        dtype: Precision of the graphs.
        data: Folder of the data set; None: where the training read it.
        latest: Whether to point `latest` at the artefact although it names another one.
        sign: Signs the artefact; None leaves it unsigned.
        width: Nodes that runs keep at every level, at most; None: as few as make the same lists on validation.
        candidates: Which candidates join the beam's (`export.choose_candidates`).
        say: Receives the name of each step.

    Returns:
        The artefact's folder and a report.

    Raises:
        ExportError: The run or its data cannot be used, or the gate found differences.
    """
    try:
        say("reading the run and its data")
        run = Run.open(folder)
        if not streams(run.network) and run.network.encoder not in {*history_encoder.WRITERS, *user_encoder.WRITERS}:
            raise ExportError(
                f"the encoder {run.network.encoder!r} cannot be exported: it exists only in torch, for comparison"
            )
        dataset = run.dataset(data)
        split = run.split(dataset)
        say("fitting item-CF and popularity")
        baselines = fit_baselines(split, exclude_history=not run.config.repeats)
        say("fitting the other signals")
        parts = parts_of(run, dataset, split, baselines, data)
        if candidates in ("all", "signals"):  # the weights are learned from what lists will hold
            parts = replace(parts, dense=candidates == "all")
        learned = learn_ranker(parts, split, out, exclude_history=not run.config.repeats, say=say)
        parts = with_candidates(replace(parts, ranker=learned.weights), split, candidates, say)
        say("writing and checking the graphs")
        quality = quality_of(parts, split, out, dtype)
        found: list[Measured] = []

        def measured(engine: Engine) -> Measured:
            dense = parts.dense_candidates or parts.cells is not None
            found.append(forced_width(width) if width else measure_sizes(engine, split, dense=dense, say=say))
            return found[0]

        published, result = export(
            parts, out, dtype, probes(split, run), quality, latest=latest, sign=sign, measured=measured,
            watched=lambda engine: watch_baseline(engine, split),
        )  # fmt: skip
    except (RunError, DataError, LearningError, ParityError, ArtifactFileError, ServiceError) as error:
        raise ExportError(str(error)) from error
    notes = [
        note
        for note in (
            note_on_long(split.train, ITEM_CF_EVENTS, "item-CF counts"),
            _cut(result),
            found[0].note(),
            note_on_candidates(parts.about["candidates"]),
        )
        if note
    ]
    return published, {
        "parity": result.to_json(),
        "ranker": dict(learned.report),
        "model_version": published.name,
        "notes": [*learned.notes(), *parts.about["cold_items"]["notes"], *notes],
    }


def _cut(result: GateResult) -> str | None:
    """Says what the parity gate left out, if anything."""
    if not result.probes_cut:
        return None
    return (
        f"{result.probes_cut} of the {result.probes} histories that the parity gate compares are longer than "
        f"{result.probe_events_max:,} events: their newest were compared"
    )


def parts_of(run: Run, dataset: Dataset, split: Split, baselines: Baselines, data: Path | None = None) -> Parts:
    """Returns all parts of the artefact; until weights are learned, the dense score alone ranks.

    Args:
        run: The run.
        dataset: Its data.
        split: The split of the run.
        baselines: What was fitted to the training part.
        data: Folder of the data set, which keeps the vectors of its texts; None: where the training read it.
    """
    # The training of a run with texts has left their vectors in the folder.
    content = content_vectors(run.config, dataset, split.train.item_ids, run.data_path(data))
    signal_data = SignalData(
        split.train, dataset, baselines.item_cf, baselines.popularity, content.texts, content.given
    )
    model = run.model()
    place_cold_items(model, signal_data.cold, kept_items(run))
    about = {
        "data": dict(run.data) | {"path": None, **times_of(split)},
        "training": json.loads((run.folder / "config.json").read_text("utf-8")),
        "item_cf": baselines.config.to_json(),
        "event_types": _event_types(split),
        "repeats": dict(run.repeats or {}) | {"kept": bool(run.config.repeats)},
        "metrics": _metrics(run),
        "cold_items": signal_data.cold.to_json(),
    }
    return Parts(
        name=run.data["name"],
        model=model,
        tokenizer=run.tokenizer,
        catalogue=catalogue_of(dataset, split.sequences.item_ids),
        context=run.context,
        item_cf=baselines.item_cf,
        popularity=baselines.popularity,
        signals=fit_signals(signal_data),
        about=about,
        encoder_counts=kept_counts(run),
        attributes=run.attributes,
        together=together_table(split.train),
        known_queries=run.known_queries,
    )


def times_of(split: Split) -> dict[str, int | None]:
    """Returns the times of the last event and of the last one that was trained on; None in a log without times."""
    log, train = split.sequences, split.train
    if not log.has_time:
        return {"last_event_ms": None, "trained_until_ms": None}
    return {"last_event_ms": int(log.time_ms.max(initial=0)), "trained_until_ms": int(train.time_ms.max(initial=0))}


def place_cold_items(model: GPT4Rec, cold: ColdItems, kept: int = 0) -> None:
    """Gives cold items the vectors of what stands in for them, so that graphs, parity gate and reference have them all.

    Theirs are what the start of the training and being a wrong answer all along made of them. Texts that are mixed
    into the item embeddings stand in for them already. The first `kept` items have vectors that states have read.
    """
    items, vectors = cold_vectors(model, cold, kept)
    if len(items):
        model.set_item_vectors(torch.from_numpy(items), torch.from_numpy(vectors))


def _metrics(run: Run) -> Any:
    """What `gpt4rec train` measured at the end of the run; None if it did not get there."""
    file = run.folder / "metrics.json"
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"metrics.json of the run cannot be read: {error}",
            where=str(file),
            fix="restore the file from a copy, or remove it to export without its figures",
        ) from error


def _event_types(split: Split) -> dict[str, int]:
    """Returns the number of events of each type that the model was trained on, the most frequent type first."""
    count = np.bincount(split.sequences.type, minlength=len(EVENT_TYPES))
    order = np.argsort(-count, kind="stable")
    return {EVENT_TYPES[kind]: int(count[kind]) for kind in order if count[kind]}


def catalogue_of(dataset: Dataset, item_ids: list[str]) -> Catalogue:
    """Returns the catalogue of the items given in index order."""
    rows = {row["item_id"]: row for row in dataset.items.iter_rows(named=True)}
    on_paths = dataset.category_kind == "path"
    return Catalogue.of([_item(item_id, rows.get(item_id, {}), on_paths=on_paths) for item_id in item_ids])


def _item(item_id: str, row: Mapping[str, Any], *, on_paths: bool) -> CatalogueItem:
    """An item of the data set; its categories are the levels of one path, or tags and paths as texts."""
    levels = tuple(row.get("category") or ())
    one_path = on_paths and len(levels) > 1
    fields = categories_of([levels] if one_path else levels)
    return CatalogueItem(
        item_id, row.get("title"), levels if one_path else fields["category"], row.get("brand"),
        tuple(row.get("attributes") or ()), fields["paths"], row.get("price"), row.get("currency"), row.get("stock"),
        row.get("image"), row.get("url"), row.get("valid_from"), row.get("valid_until"),
    )  # fmt: skip


def quality_of(parts: Parts, split: Split, out: Path, dtype: GraphDtype) -> Quality | None:
    """Returns what graphs that round are measured against; None for float32, which does not round."""
    if dtype == "float32":
        return None
    sample = _sampled(split, QUALITY_USERS)
    with staging(out) as folder:
        write(parts, folder, "float32")
        exact = _ndcg_at_10(Engine(Artifact.open(folder), device="cpu"), sample)
    return Quality(lambda engine: _ndcg_at_10(engine, sample), exact, len(sample.valid))


def _ndcg_at_10(engine: Engine, split: Split) -> float:
    """Returns NDCG@10 of the served beam's lists on the validation part."""
    systems = {"gpt4rec": engine_ranker(engine, Decoding("beam"), k=10)}
    result = evaluate(systems, split, "valid", exclude_history=not engine.artifact.repeats, samples=1)
    return float(result.systems["gpt4rec"].figures["ndcg@10"] or 0.0)


def _sampled(split: Split, limit: int) -> Split:
    n = len(split.valid)
    if n <= limit:
        return split
    rows = np.sort(np.random.default_rng(0).permutation(n)[:limit])
    return replace(split, valid=split.valid.rows(rows))


def probes(split: Split, run: Run) -> list[Probe]:
    """Returns histories for the parity gate: an empty one, the shortest, the longest, and a spread of lengths."""
    log = split.sequences
    vocabulary = run.vocabulary(log.item_ids)
    order = np.argsort(log.lengths, kind="stable")
    users = np.unique(order[np.linspace(0, len(order) - 1, min(PROBES, len(order))).astype(int)])
    context = {name: next(iter(values)) for name, values in run.context.values.items() if values}
    found = [Probe(EventArrays(*(np.zeros(0, np.int64) for _ in range(3))))]
    for number, user in enumerate(users):
        events = history_events(log, int(user), int(log.offsets[user + 1]), vocabulary)
        known = run.context.max_gap_ms > 0 and number % 2 == 1
        found.append(Probe(events, context if known else {}, run.context.max_gap_ms // 2 if known else -1))
    return found
