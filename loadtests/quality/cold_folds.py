"""Cold items over folds: every item is held out once, and all folds are judged together, question by question.

A user's last event is a cold question in exactly one fold; warm questions come again in every fold. So cold questions
for one item, and all warm questions of one user, are resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import typer

from loadtests.common import results
from loadtests.quality import criteria
from loadtests.quality.cold_trial import LIKE, MEASURES, NEAREST, VARIANTS, WAYS
from loadtests.quality.means import with_holm
from model.evaluation.bootstrap import paired_bootstrap
from service.artifact.array_types import Float64Array, IntArray

NAME = "quality_cold_folds"
# The way to know an item that the criteria judge, and the one whose warm items it must not lose.
JUDGED, WITHOUT_TEXTS = "content", "id"
KINDS = ("cold", "warm")

# Of each fold: seed → way to know an item → its figures.
Found = Sequence[Mapping[int, Mapping[str, Mapping[str, Any]]]]


def chosen(only: str) -> list[str]:
    """Returns the ways to measure: those of `only`, all if it is empty.

    Raises:
        BadParameter: A name is unknown, or a way lacks the training that it needs.
    """
    names = [name.strip() for name in only.split(",") if name.strip()] or list(WAYS)
    if unknown := sorted(set(names) - set(WAYS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(WAYS)}", param_hint="--only")
    if WITHOUT_TEXTS not in names or NEAREST not in names:
        raise typer.BadParameter(f"needs {WITHOUT_TEXTS} and {NEAREST}, to compare with", param_hint="--only")
    return [name for name in WAYS if name in names]


def record(label: str, found: Found, command: str) -> None:
    """Records the means, a row for each fold, the paired differences over all folds, and the rows of the criteria."""
    first = next(iter(found[0].values()))
    part: dict[str, Any] = {
        "seeds": list(found[0]),
        "questions": {kind: len(_values(found, first, WITHOUT_TEXTS, kind, MEASURES[0])) for kind in KINDS},
        "means": {name: {kind: _means(found, first, name, kind) for kind in KINDS} for name in first},
        "folds": [_fold(one) for one in found],
        "gained": gained(found),
        "command": command,
    }
    results.save_part(NAME, label, part, command=command)
    for name, value in criterion_rows(label, part).items():
        results.record(results.QUALITY, results.row(name, value, "", command, **criteria.limit(name)))


def criterion_rows(label: str, part: Mapping[str, Any]) -> dict[str, float]:
    """Returns the rows of a measurement: every mean, and what the criteria ask of the judged way."""
    rows = {
        f"{label}: {measure} of {kind} items, {name}": kinds[kind][measure]
        for name, kinds in part["means"].items()
        for kind in KINDS
        for measure in criteria.MEASURES
    }
    for row in part["gained"]:
        if row["name"] != JUDGED or row["measure"] not in criteria.MEASURES:
            continue
        name = f"{label}: {row['measure']}"
        if row["part"] == "cold" and row["against"] == NEAREST:
            rows[f"{name} {criteria.COLD}"] = row["low"]
        if row["part"] == "warm":
            before = part["means"][WITHOUT_TEXTS]["warm"][row["measure"]]
            rows[f"{name} {criteria.WARM}"] = -row["difference"] / before if before else 0.0
            rows[f"{name} {criteria.WARM}, upper end"] = -row["low"] / before if before else 0.0
    return rows


def gained(found: Found) -> list[dict[str, Any]]:
    """Compares each way with texts alone for cold items, and with ids alone for warm ones.

    The questions are those of all folds. Holm's correction covers all rows.
    """
    first = next(iter(found[0].values()))
    pairs = [(name, NEAREST, "cold") for name in first if name != NEAREST]
    pairs += [(name, WITHOUT_TEXTS, "warm") for name in first if name in (*VARIANTS, LIKE) and name != WITHOUT_TEXTS]
    rows = []
    for name, against, kind in pairs:
        cluster = clusters(found, kind)
        for measure in MEASURES:
            ours, theirs = (_values(found, first, way, kind, measure) for way in (name, against))
            interval = asdict(paired_bootstrap(ours, theirs, cluster=cluster))
            rows.append({"name": name, "against": against, "part": kind, "measure": measure, **interval})
    return with_holm(rows)


def _values(found: Found, first: Mapping[str, Any], name: str, kind: str, measure: str) -> Float64Array:
    """Returns the mean over the seeds of every question, fold after fold."""
    assert name in first  # noqa: S101 - every fold measures the same ways
    of_folds = [np.mean([ways[name]["of_users"][kind][measure] for ways in one.values()], axis=0) for one in found]
    return np.asarray(np.concatenate(of_folds), np.float64)


def clusters(found: Found, kind: str) -> IntArray:
    """Returns which questions are resampled together: those for one item if cold, those of one user if warm."""
    key = "targets" if kind == "cold" else "users"
    names = [value for one in found for value in next(iter(one.values()))[WITHOUT_TEXTS][key][kind]]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _means(found: Found, first: Mapping[str, Any], name: str, kind: str) -> dict[str, float]:
    return {measure: float(_values(found, first, name, kind, measure).mean()) for measure in MEASURES}


def _fold(one: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns the figures of a fold: its cold questions, and recall@10 of each way."""
    ways = next(iter(one.values()))
    return {
        "questions": {kind: len(ways[WITHOUT_TEXTS]["targets"][kind]) for kind in KINDS},
        "recall@10": {
            name: {
                kind: float(np.mean([of_seed[name]["figures"][kind]["recall@10"] for of_seed in one.values()]))
                for kind in KINDS
            }
            for name in ways
        },
    }
