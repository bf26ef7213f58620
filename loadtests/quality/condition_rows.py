"""What two ways of asking or training differ by, over the same questions: the ablation rows of the conditions.

Ranks of a training lie in its work folder, figures and rows in `results/quality_conditions.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loadtests.common.results import QUALITY, load, record, row, save
from loadtests.quality import criteria
from model.evaluation import metrics
from model.evaluation.bootstrap import paired_bootstrap
from service.artifact.array_types import Float64Array, IntArray

NAME = "quality_conditions"
MEASURES: dict[str, Callable[[IntArray, int], Float64Array]] = {
    "recall@10": metrics.recall,
    "ndcg@10": metrics.ndcg,
}

console = Console(stderr=True)

Asked = tuple[str, str]  # (variant, how it was asked)


@dataclass(frozen=True)
class Ablation:
    """`ours` against `theirs`, each a training and how it was asked, over all users or those of a mask (`among`)."""

    label: str
    ours: Asked
    theirs: Asked
    among: str = ""


AS_SERVED = "against repeat purchase, as served"
UNKNOWN: Asked = ("none", "unknown")
ONE_MODEL: Asked = ("all", "unknown")
JOURNEY: tuple[Ablation, ...] = (
    Ablation("codes from the category tree, not semantic ids", ("hierarchical", "unknown"), UNKNOWN),
    Ablation("user features in the conditional norm", ("features", "known"), UNKNOWN),
    Ablation("user features as a prefix token", ("prefix", "known"), UNKNOWN),
    Ablation("user features in every layer", ("injected", "known"), UNKNOWN),
    Ablation("user features in the conditional norm, users who have them", ("features", "known"), UNKNOWN, "featured"),
    Ablation("user features as a prefix token, users who have them", ("prefix", "known"), UNKNOWN, "featured"),
    Ablation("user features in every layer, users who have them", ("injected", "known"), UNKNOWN, "featured"),
    Ablation("user features in a layer (MLP), not as a sum", ("mlp", "known"), ("features", "known")),
    Ablation("part of the day as the scene", ("scene", "known"), UNKNOWN),
    Ablation("soft prompts for the scene, beside its embedding", ("prompts", "known"), ("scene", "known")),
    Ablation("soft prompts for a user feature, beside its embedding", ("segment", "known"), ("features", "known")),
    Ablation("gap to now", ("gap", "known"), UNKNOWN),
    Ablation("category asked for", ("control", "category"), UNKNOWN),
    Ablation("price band asked for", ("control", "price_band"), UNKNOWN),
    Ablation("category and price band asked for", ("control", "both"), UNKNOWN),
    Ablation("category told to the model, lists of the category alone", ("control", "category within"),
             ("none", "within")),
    Ablation("everything known", ("all", "everything"), UNKNOWN),
    Ablation("trained with all conditions, asked with none", ONE_MODEL, UNKNOWN),
    Ablation("one model: user features", ("all", "features"), ONE_MODEL),
    Ablation("one model: part of the day as the scene", ("all", "scene"), ONE_MODEL),
    Ablation("one model: gap to now", ("all", "gap"), ONE_MODEL),
    Ablation("one model: category asked for", ("all", "category"), ONE_MODEL),
    Ablation("one model: price band asked for", ("all", "price_band"), ONE_MODEL),
    Ablation("one model: category told, lists of the category alone", ("all", "category within"), ("all", "within")),
    Ablation("against repeat purchase, nothing known", ONE_MODEL, ("none", "repeat purchase")),
    Ablation("against item-CF, nothing known", ONE_MODEL, ("none", "item-CF")),
    Ablation(AS_SERVED, ("all", "served"), ("none", "repeat purchase")),
    Ablation("against repeat purchase, as served when the time of the request is known", ("all", "served, gap known"),
             ("none", "repeat purchase")),
)  # fmt: skip
TYPES: tuple[Ablation, ...] = (
    Ablation("types embedded", ("types", "unknown"), ("without", "unknown")),
    Ablation("types with a learned scale", ("scaled", "unknown"), ("without", "unknown")),
    Ablation("types with a learned scale, against embedded alone", ("scaled", "unknown"), ("types", "unknown")),
    Ablation("types weighed in the loss, what was liked", ("weighted", "unknown"), ("scaled", "unknown"), "liked"),
    Ablation("types weighed in the loss, all", ("weighted", "unknown"), ("scaled", "unknown")),
)
PARTS: dict[str, tuple[Ablation, ...]] = {"journey": JOURNEY, "types": TYPES}


def keep(
    work: Path,
    part: str,
    name: str,
    variant: str,
    seed: int,
    ranks: Mapping[str, IntArray],
    figures: Mapping[str, Mapping[str, float | None]],
    about: Mapping[str, Any],
) -> None:
    """One training's ranks and figures; then all rows that they complete, over every seed both sides have."""
    np.savez(work / f"{name}-{variant}-{seed}.ranks.npz", allow_pickle=False, **ranks)
    payload = load(NAME) or {}
    masks = {key: value for key, value in about.items() if isinstance(value, list)}
    runs = {**payload.get("runs", {})}
    runs[f"{name}-{variant}-{seed}"] = {
        "part": part, "variant": variant, "seed": seed, "data": about["data"],
        "questions": len(next(iter(ranks.values()))), "figures": figures,
    }  # fmt: skip
    known = {**_masks(work, name), **{key: np.array(value, bool) for key, value in masks.items()}}
    np.savez(work / f"{name}.masks.npz", allow_pickle=False, **known)
    seeds = sorted({run["seed"] for key, run in runs.items() if key.startswith(f"{name}-")})
    rows = [found for one in PARTS[part] if (found := compared(work, name, one, seeds, known)) is not None]
    command = f"python -m loadtests.quality.conditions {part} --data DIR --work DIR"
    ablations = {**payload.get("ablations", {}), name: rows}
    save(NAME, {"runs": runs, "ablations": ablations}, command=command)
    for found in rows:
        if any(asked_more(old, found) for old in _of_other_trials(name, found["label"], runs, ablations)):
            continue  # the tables have both; the row stays that of the larger trial
        data = _log(about)
        criterion = f"{data}: recall@10 gained, {found['label']}"
        record(QUALITY, row(criterion, found["recall@10"]["difference"], "", command))
        if found["label"] == AS_SERVED:
            for measure in MEASURES:
                criterion = f"strict {data}, conditions: {measure} {criteria.ON_REPEAT}"
                record(QUALITY, row(criterion, found[measure]["low"], "", command, **criteria.limit(criterion)))
    for how, figure in figures.items():
        console.print(f"{variant}, seed {seed}, {how}: {figure}", highlight=False)


def asked_more(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether an ablation rests on more answers than another: the questions of all its seeds."""
    return bool(one["seeds"] * one["questions"] > other["seeds"] * other["questions"])


def _of_other_trials(
    name: str, label: str, runs: Mapping[str, Any], ablations: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[Mapping[str, Any]]:
    """Yields the rows of a label that other trials on the same log have."""
    log_of = {trial: next((_log(run) for key, run in runs.items() if key.startswith(f"{trial}-")), "")
              for trial in ablations}  # fmt: skip
    for trial, rows in ablations.items():
        if trial != name and log_of[trial] == log_of[name]:
            yield from (row for row in rows if row["label"] == label)


def _log(about: Mapping[str, Any]) -> str:
    """Returns the name of a log without the rule that its part was taken by."""
    return str(about["data"]).split(",")[0]


def compared(
    work: Path, name: str, one: Ablation, seeds: Sequence[int], masks: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns an ablation's row: both values, their difference and its interval over users.

    Each user's value is the mean over the seeds on which both sides were trained. None if there is no such seed.
    """
    pairs = [(ours, theirs) for seed in seeds if (ours := _ranks(work, name, one.ours, seed)) is not None
             and (theirs := _ranks(work, name, one.theirs, seed)) is not None]  # fmt: skip
    if not pairs or (one.among and one.among not in masks):
        return None
    rows = masks[one.among] if one.among else np.ones(len(pairs[0][0]), bool)
    found: dict[str, Any] = {**asdict(one), "seeds": len(pairs), "questions": int(rows.sum())}
    for measure, value in MEASURES.items():
        ours, theirs = (np.mean([value(pair[side], 10)[rows] for pair in pairs], axis=0) for side in (0, 1))
        interval = paired_bootstrap(ours, theirs)
        found[measure] = {"with": float(ours.mean()), "without": float(theirs.mean()), **asdict(interval)}
    return found


def _ranks(work: Path, name: str, asked: Asked, seed: int) -> IntArray | None:
    """[questions] of a training that there is, or of a baseline, which every seed shares."""
    file = work / f"{name}-{asked[0]}-{seed}.ranks.npz"
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        ranks: IntArray | None = arrays.get(asked[1])
        return ranks


def _masks(work: Path, name: str) -> dict[str, Any]:
    file = work / f"{name}.masks.npz"
    if not file.exists():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
