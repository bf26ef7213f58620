"""Items that nobody has used yet: a tenth of the catalogue is held out of training, with all its events.

    python -m loadtests.quality.cold --data DIR --work DIR [--seeds 0,1,2] [--minutes 2]

The items are drawn once, so that every seed is asked the same. Three trainings a seed: `id` (no texts), `codes` (texts
place the semantic ids) and `content` (texts are mixed into the item embeddings as well); and `like`: the model of `id`,
with the held-out items described to the service by the items their texts are like, as they come between two trainings
(`loadtests.quality.cold_live`). Cold questions are users whose last event is a held-out item, after their other events;
warm ones are the usual test of the remaining log. Both are asked through the exported graphs, as served. What is
measured already is not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from rich.console import Console

from export.from_run import export_run
from loadtests import results
from loadtests.draw_cold import PARTS
from loadtests.quality.cold_live import describe, live_ranker
from loadtests.quality.means import spread, with_holm
from loadtests.quality.strategies import artifact_of
from model.bootstrap import paired_bootstrap
from model.cli import fit
from model.config import TrainConfig
from model.data import Dataset, Sequences, sequences
from model.data_split import Holdout, Split
from model.evaluate import Ranker, evaluate
from model.metrics import FloatArray
from model.ranking import engine_ranker
from model.run import Run
from model.train import CHECKPOINT, Trainer
from service.decoding import Decoding
from service.engine import Engine

NAME = "quality_cold"
DECODING = Decoding("beam", beam_width=5)
MEASURES = ("recall@10", "recall@20", "ndcg@10")
EPOCHS = 1000  # as many as the minutes hold
VARIANTS: dict[str, dict[str, Any]] = {
    "id": {"text": "none"},
    "codes": {"text": "codes"},
    "content": {"text": "items"},
}
LIKE = "like"
COMMAND = "python -m loadtests.quality.cold --data DIR --work DIR"

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def cold(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data` whose items have texts.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs.")],
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0,1,2",
    minutes: Annotated[float, typer.Option(min=0.01, help="Longest training.")] = 2.0,
    share: Annotated[float, typer.Option(min=0.01, max=0.5, help="Of the items, held out.")] = 0.1,
) -> None:
    """Train, rank cold and warm questions, and record the means over the seeds."""
    dataset = Dataset.load(data)
    held_out = cold_items(dataset, share)
    folder = work / f"cold-{dataset.name}-{minutes:g}m-{share:g}"
    reduced = folder / "data"
    if not (reduced / "meta.json").exists():
        without(dataset, held_out).save(reduced)
    found: dict[str, dict[str, Any]] = {}
    for seed in (int(part) for part in seeds.split(",")):
        for name in (*VARIANTS, LIKE):
            kept = folder / f"{name}-{seed}.json"
            if not kept.exists():
                if name == LIKE:
                    figures = described(dataset, reduced, folder / f"id-{seed}", held_out)
                else:
                    settings = TrainConfig(seed=seed, max_epochs=EPOCHS).updated(VARIANTS[name])
                    figures = measured(dataset, reduced, folder / f"{name}-{seed}", settings, minutes, held_out)
                kept.write_text(json.dumps(figures), "utf-8")
            found.setdefault(name, {})[str(seed)] = json.loads(kept.read_text("utf-8"))
            console.print(f"{seed} {name}: {found[name][str(seed)]['figures']}", highlight=False)
    summarise(dataset.name, found, minutes, share)


def cold_items(dataset: Dataset, share: float) -> list[str]:
    """A share of the items with events, drawn once and for all."""
    seen = dataset.events["item_id"].unique().sort().to_numpy()
    drawn = np.random.default_rng(0).permutation(len(seen))[: max(1, round(share * len(seen)))]
    return [str(item) for item in seen[np.sort(drawn)]]


def without(dataset: Dataset, items: Sequence[str]) -> Dataset:
    """The data set without any event of `items`; the catalogue keeps them, and all users their rows."""
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
    """Users whose last event is one of `items`, asked after all their other events but those of `items`."""
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
    """One training, and both kinds of questions."""
    log = Dataset.load(reduced)
    trainer = Trainer(log, reduced, folder, settings, resume=(folder / CHECKPOINT).exists())
    fit(trainer, console, minutes)
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
    """Both kinds of questions to a model without texts that serves the held-out items as new ones."""
    log = Dataset.load(reduced)
    split = Run.open(folder).split(log)
    engine = Engine.open(artifact_of(folder), device="cpu", threads=1)
    meant = describe(engine, dataset, log, items, reduced)
    unseen = cold_questions(dataset, log, split.train, items)
    return asked(engine, live_ranker(engine, DECODING, meant), split, unseen)


def asked(engine: Engine, ranker: Ranker, warm: Split, cold: Split) -> dict[str, Any]:
    """Means, numbers of questions and each user's values of every part; `ranker` asks the engine."""
    found = {"warm": _ranked(ranker, warm), "cold": _ranked(ranker, cold)}
    engine.set_blend(0.0)
    engine.set_dense_candidates(False)
    found["path"] = _ranked(ranker, cold)
    return {
        "figures": {part: one["figures"] for part, one in found.items()},
        "questions": {"warm": len(warm.test), "cold": len(cold.test), "path": len(cold.test)},
        "of_users": {part: one["users"] for part, one in found.items()},
    }


def _ranked(ranker: Ranker, split: Split) -> dict[str, Any]:
    system = evaluate({"ranker": ranker}, split, "test", samples=1).systems["ranker"]
    figures = {measure: system.figures[measure] for measure in MEASURES}
    return {"figures": figures, "users": {measure: system.per_user[measure].tolist() for measure in MEASURES}}


def summarise(label: str, found: dict[str, dict[str, Any]], minutes: float, share: float) -> None:
    """Means with 95 % intervals over the seeds, differences to `id` paired by user, and the rows of the criteria."""
    means = {
        name: {
            part: {measure: spread([run["figures"][part][measure] for run in runs.values()]) for measure in MEASURES}
            for part in PARTS
        }
        for name, runs in found.items()
    }
    one = next(iter(found["id"].values()))
    part = {
        "minutes": minutes,
        "share": share,
        "seeds": len(found["id"]),
        "questions": one["questions"],
        "means": means,
        "epochs": {name: [run["epochs"] for run in found[name].values()] for name in VARIANTS},
        "gained": gained(found),
    }
    command = f"{COMMAND} --minutes {minutes:g}"
    parts = (results.load(NAME) or {}).get("parts", {})
    results.save(NAME, {"parts": {**parts, label: part}}, command=command)
    record(label, part, command)


def record(label: str, part: Mapping[str, Any], command: str) -> None:
    """The rows: every mean; texts find cold items that ids cannot, and lose no warm ones, by more than chance."""
    for name, means in part["means"].items():
        for kind in PARTS:
            for measure in ("recall@10", "recall@20"):
                criterion = f"{label}: {measure} of {PARTS[kind]}, {name}"
                results.record(results.QUALITY, results.row(criterion, means[kind][measure]["mean"], "", command))
    for row in part["gained"]:
        if row["name"] == "codes" or row["measure"] != "recall@10":
            continue
        criterion = f"{label}: recall@10 of {PARTS[row['part']]}, {row['name']} against id"
        if row["part"] == "cold":
            found = results.row(
                f"{criterion}: chance of as much without a gain", row["p_holm"], "p", command, at_most=0.05
            )
            results.record(results.QUALITY, found)
        if row["part"] == "warm":
            found = results.row(f"{criterion}: high end of what is gained", row["high"], "", command, at_least=0.0)
            results.record(results.QUALITY, found)


def gained(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each variant less `id`: each user's value is the mean over the seeds, Holm's correction over all rows."""
    rows = []
    for name in [name for name in found if name != "id"]:
        for part in PARTS:
            for measure in MEASURES:
                ours, theirs = (_over_seeds(found[way], part, measure) for way in (name, "id"))
                interval = asdict(paired_bootstrap(ours, theirs))
                rows.append({"name": name, "part": part, "measure": measure, **interval})
    return with_holm(rows)


def _over_seeds(runs: Mapping[str, Any], part: str, measure: str) -> FloatArray:
    """[questions] mean over the seeds."""
    return np.asarray(np.mean([run["of_users"][part][measure] for run in runs.values()], axis=0), np.float64)


if __name__ == "__main__":
    app()
