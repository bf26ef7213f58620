"""`gpt4rec export --baseline`: writes an artefact without a network, whose lists come from a named scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from export.artifact_writer import save_signals
from export.from_run import ExportError, catalogue_of, times_of
from export.publish import publish, seal, staging
from export.signing import Sign
from export.watch_baseline import watch_baseline
from model.data.dataset import Dataset, sequences
from model.data.errors import DataError
from model.data.long_histories import ITEM_CF_EVENTS, REPEAT_EVENTS, note_on_long
from model.data.split import Split
from model.errors import LearningError
from model.evaluation.baselines import Baselines, fit_baselines, fit_repeat
from model.ranking.learning import LEAST_ANSWERED
from model.ranking.without_network import learn_without_network
from model.signals.data import SignalData
from model.signals.registry import SIGNALS, TEXTS, fit_signal, fit_signals
from model.signals.together import together_table
from model.texts.sentence_vectors import TextError, item_text_vectors
from model.tokenizers.atomic import AtomicTokenizer
from model.training.conditions import fit_context, item_controls
from model.training.config import TrainConfig
from model.training.repeats import judge_repeats
from model.training.run_folder import split_of
from service.artifact.arrays import save_arrays
from service.artifact.features import EVENT_TYPES
from service.artifact.manifest import TOGETHER_FILE
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE_ALONE, RankerWeights
from service.artifact.scorers.signal_files import COLD, ITEM_CF, POPULARITY, SignalPart
from service.artifact.trie import Trie
from service.engine.baseline_engine import FUSED, BaselineEngine
from service.engine.factory import open_engine
from service.signals.ranker import Ranker
from service.watch.baseline import ENTRY as WATCH_BASELINE

# Scorers with settings of their own, then each signal of the ranker, and all of them together.
_TUNED = (ITEM_CF, POPULARITY, "repeat")
NAMES = (*_TUNED, *(name for name in SIGNALS if name not in (*_TUNED, COLD)), FUSED)

Say = Callable[[str], None]


def export_baseline(
    name: str,
    data: Path,
    out: Path,
    *,
    latest: bool = False,
    sign: Sign | None = None,
    say: Say = lambda _: None,
    note: Say = lambda _: None,
) -> Path:
    """Fits a scorer on the training part of a data set and publishes it.

    Args:
        name: The scorer, one of `NAMES`.
        data: Folder of the data set, which is split as a training splits it by default.
        out: Folder of artefacts.
        latest: Whether to point `latest` at the artefact although it names another one.
        sign: Signs the artefact; None leaves it unsigned.
        say: Receives the name of each step.
        note: Receives what the user should know about the result.

    Returns:
        The artefact's folder.

    Raises:
        ExportError: The data cannot be read, or hold nothing that the scorer could be fitted on, or values that are not
            finite.
    """
    try:
        say("reading the data")
        dataset = Dataset.load(data)
        split = split_of(TrainConfig(), sequences(dataset))
    except DataError as error:
        raise ExportError(str(error)) from error
    if long := note_on_long(split.train, ITEM_CF_EVENTS, "item-CF counts"):
        note(long)
    with staging(out) as folder:
        say("fitting the scorer")
        manifest = _write(name, dataset, split, folder, data)
        if name == FUSED and (untold := _untold(manifest["ranker"]["learned"]["without_network"])):
            note(untold)
        seal(folder, manifest, f"{name}-{dataset.name}")
        say("counting what lists and events are like")
        found = watch_baseline(cast("BaselineEngine", open_engine(folder)), split)
        seal(folder, manifest | {WATCH_BASELINE: found.to_json()}, f"{name}-{dataset.name}")
        return publish(folder, out, latest=latest, sign=sign)


def _untold(about: Mapping[str, Any]) -> str | None:
    """Says that no weights were learned; None if they were."""
    if about["learned"]:
        return None
    bonus = about.get(COLD, {}).get("bonus", 0.0)
    cold = f", and items without events have a bonus of {bonus:+g}" if bonus else ""
    if about["answered"] < LEAST_ANSWERED:
        return (
            f"{about['answered']:,} answered questions of validation are too few to learn from, {LEAST_ANSWERED} are "
            f"needed: item-CF ranks{cold}"
        )
    return f"validation tells nothing about the other signals, so item-CF ranks{cold}"


def _write(name: str, dataset: Dataset, split: Split, folder: Path, data: Path) -> dict[str, Any]:
    """Writes all files except the manifest, and returns that."""
    found = judge_repeats(split)
    if name == "repeat":  # it lists items of the history, so lists must be allowed to contain them
        found = replace(found, kept=True, by_rule=False)
    fitted = fit_baselines(split, exclude_history=not found.kept)
    repeat = fit_repeat(split) if name == "repeat" else None
    signals, weights = _signals(name, dataset, split, fitted, data)
    reach = {POPULARITY: 1, "repeat": REPEAT_EVENTS}.get(name) or _horizon(signals.values())
    if weights is None:
        weights = _learned(signals, split, reach, has_time=dataset.has_time, exclude_history=not found.kept)
    n = split.train.n_items
    tokenizer = AtomicTokenizer.fit(n)
    Trie.build(tokenizer.codes).save(folder / "trie.npz")
    save_arrays(folder / "items.npz", item_table=np.zeros((n + 2, 1), np.float32))
    catalogue_of(dataset, split.sequences.item_ids).save(folder / "catalogue.npz")
    tokenizer.save(folder)
    save_signals(folder, signals)
    if (together := together_table(split.train)) is not None:
        together.save(folder / TOGETHER_FILE)
    context = fit_context(dataset, split.train, item_controls(dataset, split.train.item_ids))
    return {
        "baseline": {"name": name} | ({} if repeat is None else {"decay": repeat.decay}),
        "streaming": False,
        "receptive_field": reach,
        "network": {
            "n_items": n, "code_sizes": list(tokenizer.code_sizes), "n_types": len(EVENT_TYPES),
            "n_slots": len(context.slots), "d_model": 1, "layers": 0, "heads": 0, "window": 0, "d_head": 0,
            "state_dtype": "float16",
        },
        "context": context.to_json(),
        "has_time": dataset.has_time,
        "tokenizer": tokenizer.kind,
        "dtype": "float32",
        "ranker": weights.to_json(),
        "training": asdict(TrainConfig(repeats=found.kept)),
        "repeats": found.to_json(),
        "item_cf": fitted.config.to_json(),
        "data": {
            "name": dataset.name, "fingerprint": dataset.fingerprint, "path": None, **times_of(split),
        },
    }  # fmt: skip


def _signals(
    name: str, dataset: Dataset, split: Split, fitted: Baselines, data: Path
) -> tuple[dict[str, SignalPart], RankerWeights | None]:
    """The signals of the artefact, and the weights of the scorer; None if they are to be learned."""
    signals: dict[str, SignalPart] = {ITEM_CF: fitted.item_cf, POPULARITY: fitted.popularity}
    if name in _TUNED:  # their lists do not come from the signals
        return signals, RankerWeights(tuple(signals), {DEFAULT_GROUP: DENSE_ALONE})
    try:
        texts = item_text_vectors(dataset, split.train.item_ids, data) if name == TEXTS else None
    except TextError as error:
        raise ExportError(str(error)) from error
    vectors = dataset.vectors.of(split.train.item_ids) if dataset.vectors is not None else None
    on = SignalData(split.train, dataset, fitted.item_cf, fitted.popularity, texts, vectors)
    if name == FUSED:
        return fit_signals(on), None
    part = fit_signal(name, on)
    if part is None:
        raise ExportError(f"the data hold nothing that the signal {name} could be fitted on")
    signals[name] = part
    return signals, RankerWeights(tuple(signals), {DEFAULT_GROUP: {name: 1.0}})


def _learned(
    signals: Mapping[str, SignalPart], split: Split, kept: int, *, has_time: bool, exclude_history: bool
) -> RankerWeights:
    """The weights of all signals, learned on validation."""
    ranker = Ranker.of(signals, RankerWeights(tuple(signals), {DEFAULT_GROUP: {}}))
    try:
        learned = learn_without_network(ranker, split, kept=kept, has_time=has_time, exclude_history=exclude_history)
    except LearningError as error:
        raise ExportError(str(error)) from error
    weights, about = learned.weights, {"learned": {"without_network": learned.about}}
    return RankerWeights(tuple(signals), {DEFAULT_GROUP: weights}, weights, about)


def _horizon(signals: Iterable[SignalPart]) -> int:
    """The newest events that a neighbour table reads; what is older counts through the record of own items."""
    return max((part.horizon for part in signals if isinstance(part, NeighbourTable)), default=1)
