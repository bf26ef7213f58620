"""Items that nobody has used yet: a tenth of the catalogue is held out of training, with all its events.

    python -m loadtests.quality.cold --data DIR --work DIR [--seeds 0,1,2] [--minutes 2]

The items are drawn once, so that every seed is asked the same. Three trainings a seed: `id` (no texts), `codes` (texts
place the semantic ids) and `content` (texts are mixed into the item embeddings as well); and `like`: the model of `id`,
with the held-out items described to the service by the items their texts are like, as they come between two trainings
(`loadtests.quality.cold_live`). Beside them `nearest`, no model at all: the items whose texts are nearest to the mean
of the history's. Cold questions are users whose last event is a held-out item, after their other events; warm ones are
the usual test of the remaining log. Both are asked through the exported graphs, as served. What is measured already is
not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import typer
from rich.console import Console

from export.from_run import export_run
from loadtests.common import results
from loadtests.quality.cold_live import describe, live_ranker
from loadtests.quality.cold_parts import PARTS
from loadtests.quality.means import spread, with_holm
from loadtests.quality.strategies import artifact_of
from model.cli.training_progress import fit
from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Holdout, Split
from model.evaluation.bootstrap import paired_bootstrap
from model.evaluation.evaluate import DEPTH, Histories, Ranker, evaluate
from model.evaluation.rankers import engine_ranker
from model.texts.sentence_vectors import item_text_vectors
from model.training.config import TrainConfig
from model.training.run_folder import CHECKPOINT, Run
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import Float64Array, IntArray
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.engine.decoding import Decoding
from service.engine.engine import Engine

NAME = "quality_cold"
DECODING = Decoding("beam", beam_width=5)
MEASURES = ("recall@10", "recall@20", "ndcg@10")
EPOCHS = 1000  # as many as the minutes hold
VARIANTS: dict[str, dict[str, Any]] = {
    "id": {"text": "none"},
    "codes": {"text": "codes"},
    "content": {"text": "items"},
}
LIKE, NEAREST = "like", "nearest"
SEEDS, MINUTES, SHARE = "0,1,2", 2.0, 0.1
# Of what ids find of warm items, the most that texts may lose.
MARGIN = 0.05
COMMAND = "python -m loadtests.quality.cold --data DIR --work DIR"

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def cold(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data` whose items have texts.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs.")],
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = SEEDS,
    minutes: Annotated[float, typer.Option(min=0.01, help="Longest training.")] = MINUTES,
    share: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of the items that is held out.")] = SHARE,
) -> None:
    """Trains, ranks cold and warm questions, and records the means over the seeds."""
    dataset = Dataset.load(data)
    held_out = cold_items(dataset, share)
    folder = work / f"cold-{dataset.name}-{dataset.fingerprint[:8]}-{minutes:g}m-{share:g}"
    reduced = folder / "data"
    if not (reduced / "meta.json").exists():
        without(dataset, held_out).save(reduced)
    found: dict[str, dict[str, Any]] = {}
    for seed in (int(part) for part in seeds.split(",")):
        for name in (*VARIANTS, LIKE, NEAREST):
            kept = folder / f"{name}-{seed}.json"
            if not kept.exists():
                if name == LIKE:
                    figures = described(dataset, reduced, folder / f"id-{seed}", held_out)
                elif name == NEAREST:
                    figures = by_texts(dataset, reduced, folder / f"id-{seed}", held_out)
                else:
                    settings = TrainConfig(seed=seed, max_epochs=EPOCHS).updated(VARIANTS[name])
                    figures = measured(dataset, reduced, folder / f"{name}-{seed}", settings, minutes, held_out)
                write_aside(kept, json.dumps(figures).encode())
            found.setdefault(name, {})[str(seed)] = json.loads(kept.read_text("utf-8"))
            console.print(f"{seed} {name}: {found[name][str(seed)]['figures']}", highlight=False)
    # Other options are another measurement, never taken for the published one.
    options = [f"--minutes {minutes:g}"] if minutes != MINUTES else []
    options += [f"--seeds {seeds}"] if seeds != SEEDS else []
    options += [f"--share {share:g}"] if share != SHARE else []
    summarise(" ".join([dataset.name, *options]), found, minutes, share, " ".join([COMMAND, *options]))


def cold_items(dataset: Dataset, share: float) -> list[str]:
    """Draws a share of the items with events, always the same."""
    seen = dataset.events["item_id"].unique().sort().to_numpy()
    drawn = np.random.default_rng(0).permutation(len(seen))[: max(1, round(share * len(seen)))]
    return [str(item) for item in seen[np.sort(drawn)]]


def without(dataset: Dataset, items: Sequence[str]) -> Dataset:
    """Returns the data set without any event of `items`; the catalogue keeps them, and all users their rows."""
    events = dataset.events.filter(~pl.col("item_id").is_in(list(items)))
    return Dataset.of(
        dataset.name,
        events,
        dataset.items,
        dataset.users.filter(pl.col("user_id").is_in(events["user_id"].unique().implode())),
        has_time=dataset.has_time,
        category_kind=dataset.category_kind,
    )


def cold_questions(dataset: Dataset, reduced: Dataset, train: Sequences, items: Sequence[str]) -> Split:
    """Returns users whose last event is one of `items`, asked after all their other events except those of `items`."""
    log = sequences(reduced)
    index = {item: i for i, item in enumerate(log.item_ids)}
    row = {user: u for u, user in enumerate(log.user_ids)}
    last = dataset.events.group_by("user_id", maintain_order=True).agg(pl.col("item_id").last())
    asked = last.filter(pl.col("item_id").is_in(list(items)) & pl.col("user_id").is_in(log.user_ids))
    users = np.array([row[user] for user in asked["user_id"]], np.int64)
    test = Holdout(users, log.offsets[users + 1], np.array([index[item] for item in asked["item_id"]], np.int64))
    return Split("leave_one_out", log, train, Holdout(*(np.zeros(0, np.int64) for _ in range(3))), test)


def measured(
    dataset: Dataset, reduced: Path, folder: Path, settings: TrainConfig, minutes: float, items: Sequence[str]
) -> dict[str, Any]:
    """Trains once and asks both kinds of questions."""
    log = Dataset.load(reduced)
    trainer = Trainer(log, reduced, folder, settings, resume=(folder / CHECKPOINT).exists())
    fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds))
    with console.status("exporting and evaluating") as status:
        artifact, report = export_run(folder, folder / "artifacts", "float32", reduced, say=status.update)
        engine = Engine.open(artifact, device="cpu", threads=1)
        unseen = cold_questions(dataset, log, trainer.split.train, items)
        found = asked(engine, engine_ranker(engine, DECODING), trainer.split, unseen)
    return {
        **found,
        "blend": report["blend"],
        "epochs": trainer.progress.epoch,
        "seconds": trainer.progress.seconds,
    }


def described(dataset: Dataset, reduced: Path, folder: Path, items: Sequence[str]) -> dict[str, Any]:
    """Asks both kinds of questions of a model without texts that serves the held-out items as new ones."""
    log = Dataset.load(reduced)
    split = Run.open(folder).split(log)
    engine = Engine.open(artifact_of(folder), device="cpu", threads=1)
    meant = describe(engine, dataset, log, split.train, items, reduced)
    unseen = cold_questions(dataset, log, split.train, items)
    return asked(engine, live_ranker(engine, DECODING, meant), split, unseen)


def by_texts(dataset: Dataset, reduced: Path, folder: Path, items: Sequence[str]) -> dict[str, Any]:
    """Asks both kinds of questions of the texts alone; the split is that of the run in `folder`."""
    log = Dataset.load(reduced)
    split = Run.open(folder).split(log)
    ranker = nearest_ranker(item_text_vectors(log, split.sequences.item_ids, reduced))
    return told({"warm": (ranker, split), "cold": (ranker, cold_questions(dataset, log, split.train, items))})


def nearest_ranker(vectors: npt.NDArray[np.float32]) -> Ranker:
    """Ranks items by the cosine of their texts, [items, dim] of length 1 or 0, with the mean of the history's."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        for i in range(len(histories)):
            alike = vectors @ vectors[histories.items(i)].mean(axis=0)
            alike[histories.excluded(i)] = -np.inf
            best = np.argsort(-alike, kind="stable")[:DEPTH]
            best = best[np.isfinite(alike[best])]
            lists[i, : len(best)] = best
        return lists

    return rank


def asked(engine: Engine, ranker: Ranker, warm: Split, cold: Split) -> dict[str, Any]:
    """Returns means, numbers of questions and each user's values of every part; `ranker` asks the engine."""
    found = told({"warm": (ranker, warm), "cold": (ranker, cold)})
    engine.set_blend(0.0)
    engine.set_dense_candidates(False)
    alone = told({"path": (ranker, cold)})
    return {key: found[key] | alone[key] for key in found}


def told(parts: Mapping[str, tuple[Ranker, Split]]) -> dict[str, Any]:
    """Means, numbers of questions, each question's values and the items asked for, of every part."""
    systems = {
        part: evaluate({"ranker": ranker}, split, "test", samples=1).systems["ranker"]
        for part, (ranker, split) in parts.items()
    }
    return {
        "figures": {part: {m: one.figures[m] for m in MEASURES} for part, one in systems.items()},
        "questions": {part: len(split.test) for part, (_, split) in parts.items()},
        "of_users": {part: {m: one.per_user[m].tolist() for m in MEASURES} for part, one in systems.items()},
        "targets": {part: split.test.target.tolist() for part, (_, split) in parts.items()},
    }


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
    parts = (results.load(NAME) or {}).get("parts", {})
    results.save(NAME, {"parts": {**parts, label: part}}, command=command)
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
