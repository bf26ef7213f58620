"""What each condition is worth: one training with and one without, from the same seed over the same epochs.

    python -m loadtests.quality.conditions journey --data DIR --work DIR [--seeds 0,1,2] [--epochs 8] [--only a,b]
    python -m loadtests.quality.conditions types --data DIR --work DIR [--seeds 0,1,2] [--epochs 8] [--only a,b]

`journey` takes a log of purchases (Complete Journey), its newest part by a stated rule, split by time, items of the
history kept in the lists, beside repeat purchase, item-CF and popularity; the training with all conditions is also
asked as it is served, with nothing known. `types` takes a log of ratings (MovieLens)
and reads them as event types. Whatever was trained is in `--work` and is not trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from export.from_run import export_run
from loadtests.quality.condition_data import journey as journey_of
from loadtests.quality.condition_data import typed_by_rating
from loadtests.quality.condition_rows import keep
from model.cli.training_progress import fit
from model.data.dataset import Dataset
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.baselines import fit_baselines, fit_repeat
from model.evaluation.evaluate import Ranker, evaluate, item_cf_ranker, popularity_ranker, repeat_ranker
from model.evaluation.question_context import question_context
from model.evaluation.rankers import engine_ranker, network_ranker
from model.training.config import TrainConfig
from model.training.run_folder import Run
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.artifact.features import type_index
from service.cli.outermost import run_command
from service.engine.decoding import Decoding
from service.engine.engine import Engine

app = typer.Typer(add_completion=False)
console = Console(stderr=True)

NOTHING: frozenset[str] = frozenset()
FEATURE = "a user feature"  # stands for the first one of the data set
EVERYTHING = frozenset({"features", "scene", "gap", "category", "price_band"})
SHOWN = {"features_known": 0.0, "scene_known": 0.0, "gap_known": 0.0, "control_known": 0.0}

Data = Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")]
Work = Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of every training.")]
Only = Annotated[str, typer.Option(help="Names of trainings, separated by commas; all by default.")]


@dataclass(frozen=True)
class Variant:
    """A training, and what it is asked with: name → (what is known, lists within the category only)."""

    settings: Mapping[str, Any]
    asked: Mapping[str, tuple[frozenset[str], bool]]


def _shown(**known: float) -> dict[str, Any]:
    return {**SHOWN, **known}


def _asked(*known: str) -> dict[str, tuple[frozenset[str], bool]]:
    return {"unknown": (NOTHING, False), "known": (frozenset(known), False)}


JOURNEY: dict[str, Variant] = {
    "none": Variant(_shown(), {"unknown": (NOTHING, False), "within": (NOTHING, True)}),
    "hierarchical": Variant(_shown() | {"tokenizer": "hierarchical"}, {"unknown": (NOTHING, False)}),
    "features": Variant(_shown(features_known=0.5), _asked("features")),
    "prefix": Variant(_shown(features_known=0.5) | {"encoder": "prefix"}, _asked("features")),
    "injected": Variant(_shown(features_known=0.5) | {"encoder": "injected"}, _asked("features")),
    "mlp": Variant(_shown(features_known=0.5) | {"network": {"user_vector": "mlp"}}, _asked("features")),
    "scene": Variant(_shown(scene_known=0.5), _asked("scene")),
    "prompts": Variant(_shown(scene_known=0.5) | {"network": {"prompts": 8}}, _asked("scene")),
    "segment": Variant(
        _shown(features_known=0.5) | {"network": {"prompts": 8}, "prompt_for": FEATURE}, _asked("features")
    ),
    "gap": Variant(_shown(gap_known=0.5), _asked("gap")),
    "control": Variant(
        _shown(control_known=0.5),
        {
            "unknown": (NOTHING, False),
            "category": (frozenset({"category"}), False),
            "price_band": (frozenset({"price_band"}), False),
            "both": (frozenset({"category", "price_band"}), False),
            "within": (NOTHING, True),
            "category within": (frozenset({"category"}), True),
        },
    ),
    "all": Variant(
        {},
        {
            "unknown": (NOTHING, False),
            **{name: (frozenset({name}), False) for name in sorted(EVERYTHING)},
            "everything": (EVERYTHING, False),
            "within": (NOTHING, True),
            "category within": (frozenset({"category"}), True),
        },
    ),
}
TYPES: dict[str, Variant] = {
    "without": Variant({}, {"unknown": (NOTHING, False)}),
    "types": Variant({}, {"unknown": (NOTHING, False)}),
    "scaled": Variant({"network": {"type_scale": True}}, {"unknown": (NOTHING, False)}),
    "weighted": Variant(
        {"network": {"type_scale": True}, "type_weights": {"purchase": 1.0, "cart": 1.0, "click": 0.5, "view": 0.25}},
        {"unknown": (NOTHING, False)},
    ),
}


@app.command()
def journey(
    data: Data,
    work: Work,
    seeds: Seeds = "0",
    epochs: Epochs = 8,
    only: Only = "",
    days: Annotated[int, typer.Option(min=1, help="Use the newest days of the log.")] = 90,
    least: Annotated[int, typer.Option(min=1, help="Leave out items bought less often.")] = 100,
    households: Annotated[int, typer.Option(min=1, help="Use every n-th user.")] = 1,
) -> None:
    """User features, scene, gap, category and price band on a log of purchases."""
    dataset = journey_of(Dataset.load(data), days, least, households)
    base = {"split": "time", "max_epochs": epochs, "patience": epochs, "repeats": True}
    name = f"journey-{days}-{least}-{households}-{epochs}"
    for variant, seed in _each(JOURNEY, only, seeds):
        trainer, model_run = trained(dataset, work / f"{name}-{variant}-{seed}", base, JOURNEY[variant], seed)
        systems = asked_of(trainer, model_run, JOURNEY[variant])
        if variant == "none":
            systems |= baselines(trainer.split)
        if variant == "all":
            engine = exported(dataset, work / f"{name}-{variant}-{seed}")
            systems["served"] = served(engine)
            at_request = question_context(
                trainer.split, trainer.split.test, trainer.context, trainer.conditions, frozenset({"gap"})
            )
            systems["served, gap known"] = served(engine, at_request.gap_ms)
        ranks, figures = measured(systems, trainer.split, exclude_history=False)
        told = np.flatnonzero(trainer.conditions.features.numpy().any(axis=1))
        about = {"data": dataset.name, "featured": np.isin(trainer.split.test.users, told).tolist()}
        keep(work, "journey", name, variant, seed, ranks, figures, about)


@app.command()
def types(data: Data, work: Work, seeds: Seeds = "0", epochs: Epochs = 8, only: Only = "") -> None:
    """Event types on a log of ratings: none, embedded, with a learned scale, and weighed in the loss as well."""
    plain = Dataset.load(data)
    typed = typed_by_rating(plain)
    base = {"max_epochs": epochs, "patience": epochs}
    name = f"types-{epochs}"
    for variant, seed in _each(TYPES, only, seeds):
        dataset = plain if variant == "without" else typed
        trainer, model_run = trained(dataset, work / f"{name}-{variant}-{seed}", base, TYPES[variant], seed)
        ranks, figures = measured(asked_of(trainer, model_run, TYPES[variant]), trainer.split)
        about: dict[str, Any] = {"data": typed.name}
        if dataset is typed:
            kind = trainer.split.sequences.type[trainer.split.test.history_end]
            about["liked"] = np.isin(kind, [type_index("purchase"), type_index("cart")]).tolist()
        keep(work, "types", name, variant, seed, ranks, figures, about)


def _each(variants: Mapping[str, Variant], only: str, seeds: str) -> Iterator[tuple[str, int]]:
    names = [name.strip() for name in only.split(",") if name.strip()] or list(variants)
    for name in names:
        if name not in variants:
            raise typer.BadParameter(f"{name!r}: choose from {', '.join(variants)}", param_hint="--only")
    for seed in seeds.split(","):
        for name in names:
            yield name, int(seed)


def trained(
    dataset: Dataset, folder: Path, base: Mapping[str, Any], variant: Variant, seed: int
) -> tuple[Trainer, Run]:
    """The finished run in `folder`: trained, resumed or only opened."""
    values = {**base, **variant.settings, "seed": seed}
    if values.get("prompt_for") == FEATURE:
        feature = next((name for name in dataset.users.columns if name != "user_id"), None)
        if feature is None:
            raise typer.BadParameter("the data set has no user features, so no segments", param_hint="--only")
        values["prompt_for"] = feature
    settings = TrainConfig().updated(values)
    trainer = Trainer(dataset, folder, folder, settings, resume=(folder / "checkpoint.safetensors").exists())
    if trainer.progress.epoch < settings.max_epochs:
        console.print(f"training {folder.name}", highlight=False)
        fit(trainer, console, TimeLimit(None, used_s=trainer.progress.seconds))
    return trainer, Run.open(folder)


def asked_of(trainer: Trainer, run: Run, variant: Variant) -> dict[str, Ranker]:
    """The model of the best epoch, asked in every way."""
    model, split = run.model(), trainer.split
    return {
        name: network_ranker(
            model,
            trainer.vocabulary,
            questions=question_context(split, split.test, trainer.context, trainer.conditions, known, within=within),
        )
        for name, (known, within) in variant.asked.items()
    }


def exported(dataset: Dataset, folder: Path) -> Engine:
    """Opens the artefact of the run in `folder`, which is exported once."""
    made = sorted((folder / "artifacts").glob("*/manifest.json"))
    if made:
        artifact = made[-1].parent
    else:
        dataset.save(folder / "data")
        with console.status(f"exporting {folder.name}") as status:
            artifact, _ = export_run(folder, folder / "artifacts", "float32", folder / "data", say=status.update)
    return Engine.open(artifact, device="cpu", threads=1)


def served(engine: Engine, gap_ms: IntArray | None = None) -> Ranker:
    """Returns lists as the service gives them to users whose history it knows, and perhaps the time of the request."""
    return engine_ranker(engine, Decoding("beam", beam_width=5), gap_ms=gap_ms)


def baselines(split: Split) -> dict[str, Ranker]:
    """Returns repeat purchase, item-CF and popularity, with items of the history kept."""
    fitted = fit_baselines(split, exclude_history=False)
    return {
        "item-CF": item_cf_ranker(fitted.item_cf, fitted.popularity),
        "popularity": popularity_ranker(fitted.popularity),
        "repeat purchase": repeat_ranker(fit_repeat(split), fitted.popularity),
    }


def measured(
    systems: Mapping[str, Ranker], split: Split, *, exclude_history: bool = True
) -> tuple[dict[str, IntArray], dict[str, dict[str, float | None]]]:
    """Ranks of the targets [questions], and the figures of each system."""
    with console.status("evaluating"):
        found = evaluate(systems, split, "test", exclude_history=exclude_history, samples=1).systems
    ranks = {name: metrics.target_ranks(result.lists, split.test.target) for name, result in found.items()}
    chosen = ("recall@10", "ndcg@10", "coverage@10")
    return ranks, {name: {key: result.figures[key] for key in chosen} for name, result in found.items()}


if __name__ == "__main__":
    run_command(app)
