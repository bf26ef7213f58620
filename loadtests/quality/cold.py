"""Items that nobody has used yet: a tenth of the catalogue is held out of training, with all its events.

    python -m loadtests.quality.cold --data DIR --work DIR [--split strict] [--seeds 0,1,2] [--minutes 2]
    python -m loadtests.quality.cold --data DIR --work DIR --folds 10 [--seeds 0] [--only id,content,nearest]

The items are drawn once, so that every seed is asked the same; with `--folds` every item is held out once, in one of as
many trainings. Three trainings a seed: `id` (no texts), `codes` (texts place the semantic ids) and `content` (texts are
mixed into the item embeddings as well); and `like`: the model of `id`, with the held-out items described to the service
by the items their texts are like, as they come between two trainings (`loadtests.quality.cold_live`). Beside them
`nearest`, no model at all: the items whose texts are nearest to the mean of the history's. Cold questions are users
whose last event is a held-out item, after their other events; warm ones are the usual test of the remaining log. Both
are asked through the exported graphs, as served. What is measured already is not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loadtests.common import results
from loadtests.quality import cold_folds
from loadtests.quality.cold_parts import PARTS
from loadtests.quality.cold_trial import LIKE, MEASURES, NEAREST, VARIANTS, WAYS, Trial, cold_items, folds_of_items
from loadtests.quality.means import spread, with_holm
from loadtests.quality.protocols import SAMPLED, SPLITS, STRICT, part_name
from model.data.dataset import Dataset
from model.evaluation.bootstrap import paired_bootstrap
from service.artifact.array_types import Float64Array
from service.cli.outermost import run_command

NAME = "quality_cold"
SEEDS, MINUTES, SHARE = "0,1,2", 2.0, 0.1
# Of what ids find of warm items, the most that texts may lose.
MARGIN = 0.05
COMMAND = "python -m loadtests.quality.cold --data DIR --work DIR"

app = typer.Typer(add_completion=False)


@app.command()
def cold(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data` whose items have texts.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs.")],
    split: Annotated[
        str, typer.Option(help="Whose last event but one is held out: strict (everybody's) or sampled.")
    ] = STRICT,
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = SEEDS,
    minutes: Annotated[float, typer.Option(min=0.01, help="Longest training.")] = MINUTES,
    share: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of the items that is held out.")] = SHARE,
    folds: Annotated[
        int, typer.Option(min=0, help="Hold every item out once, in so many folds, instead of a share once.")
    ] = 0,
    only: Annotated[str, typer.Option(help=f"Of {', '.join(WAYS)}, for folds; all by default.")] = "",
) -> None:
    """Trains, ranks cold and warm questions, and records the means over the seeds."""
    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r}: choose {' or '.join(SPLITS)}", param_hint="--split")
    dataset = Dataset.load(data)
    settings = {"validation_users": 0 if split == STRICT else -1}
    start = f"cold-{split}-{dataset.name}-{dataset.fingerprint[:8]}-{minutes:g}m"
    numbers = [int(part) for part in seeds.split(",")]
    # Other options are another measurement, never taken for the published one.
    options = [f"--minutes {minutes:g}"] if minutes != MINUTES else []
    options += [f"--seeds {seeds}"] if seeds != SEEDS else []
    label = part_name(dataset.name, split, "published", None)
    command = [COMMAND] if split == STRICT else [COMMAND, f"--split {SAMPLED}"]
    if folds:
        if folds == 1:
            raise typer.BadParameter("one fold leaves nothing to train on", param_hint="--folds")
        names = cold_folds.chosen(only)
        trials = [
            Trial(dataset, items, work / f"{start}-fold-{number}-of-{folds}", settings, minutes)
            for number, items in enumerate(folds_of_items(dataset, folds), 1)
        ]
        found = [{seed: dict(trial.ask(seed, names)) for seed in numbers} for trial in trials]
        command += [f"--folds {folds}", *options, *([f"--only {only}"] if only else [])]
        cold_folds.record(" ".join([f"{label}, {folds} folds", *options]), found, " ".join(command))
        return
    if only:
        raise typer.BadParameter("goes with --folds", param_hint="--only")
    trial = Trial(dataset, cold_items(dataset, share), work / f"{start}-{share:g}", settings, minutes)
    by_name: dict[str, dict[str, Any]] = {}
    for seed in numbers:
        for name, figures in trial.ask(seed, WAYS):
            by_name.setdefault(name, {})[str(seed)] = figures
    options += [f"--share {share:g}"] if share != SHARE else []
    summarise(" ".join([label, *options]), by_name, minutes, share, " ".join([*command, *options]))


def summarise(label: str, found: dict[str, dict[str, Any]], minutes: float, share: float, command: str) -> None:
    """Records means with 95 % intervals over the seeds, paired differences, and the rows of the criteria."""
    means = {
        name: {
            part: {measure: spread([run["figures"][part][measure] for run in runs.values()]) for measure in MEASURES}
            for part in PARTS
            if part in next(iter(runs.values()))["figures"]
        }
        for name, runs in found.items()
    }
    one = next(iter(found["id"].values()))
    part = {
        "minutes": minutes,
        "share": share,
        "seeds": len(found["id"]),
        "questions": one["questions"],
        "items": {kind: len(set(targets)) for kind, targets in one["targets"].items()},
        "means": means,
        "epochs": {name: [run["epochs"] for run in found[name].values()] for name in VARIANTS},
        "gained": gained(found),
    }
    results.save_part(NAME, label, part, command=command)
    record(label, part, command)


def record(label: str, part: Mapping[str, Any], command: str) -> None:
    """Records every mean, and the two criteria.

    Texts must find cold items that ids cannot, by more than chance, and lose no more than a margin of the warm ones.
    """
    for name, means in part["means"].items():
        for kind in means:
            for measure in ("recall@10", "recall@20"):
                criterion = f"{label}: {measure} of {PARTS[kind]}, {name}"
                results.record(results.QUALITY, results.row(criterion, means[kind][measure]["mean"], "", command))
    for row in part["gained"]:
        measure, against = row["measure"], row["against"]
        if row["name"] not in ("content", LIKE) or measure == "recall@20":
            continue
        criterion = f"{label}: {measure} of {PARTS[row['part']]}, {row['name']} against {against}"
        if row["part"] == "cold" and measure == "recall@10" and against == "id":
            chance = row["p_holm"] if row["difference"] > 0 else 1.0
            said = f"{criterion}: chance of as much without a gain"
            results.record(results.QUALITY, results.row(said, chance, "p", command, at_most=0.05))
        if row["part"] == "warm":
            share = row["low"] / part["means"]["id"]["warm"][measure]["mean"]
            said = f"{criterion}: low end of what is gained, share of its figure"
            results.record(results.QUALITY, results.row(said, share, "", command, at_least=-MARGIN))


def gained(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compares each variant with `id`, and for cold items with `nearest`.

    Each question's value is the mean over the seeds, questions for one item are resampled together, and Holm's
    correction covers all rows.
    """
    pairs = [(name, "id", part) for name in (*VARIANTS, LIKE) if name != "id" for part in PARTS]
    pairs += [(name, NEAREST, "cold") for name in ("content", LIKE)]
    rows = []
    for name, against, part in pairs:
        cluster = np.array(next(iter(found[name].values()))["targets"][part], np.int64)
        for measure in MEASURES:
            ours, theirs = (_over_seeds(found[way], part, measure) for way in (name, against))
            interval = asdict(paired_bootstrap(ours, theirs, cluster=cluster))
            rows.append({"name": name, "against": against, "part": part, "measure": measure, **interval})
    return with_holm(rows)


def _over_seeds(runs: Mapping[str, Any], part: str, measure: str) -> Float64Array:
    """Returns the mean over the seeds, [questions]."""
    return np.asarray(np.mean([run["of_users"][part][measure] for run in runs.values()], axis=0), np.float64)


if __name__ == "__main__":
    run_command(app)
