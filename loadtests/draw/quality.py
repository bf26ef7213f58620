"""Tables of `docs/quality.md`, from the recorded figures. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadtests.draw import (
    methods,
    quality_candidates,
    quality_cold,
    quality_conditions,
    quality_lists,
    quality_strict,
    quality_variants,
)
from loadtests.draw.intervals import mean_of_seeds
from loadtests.draw.tables import by_command, markdown
from loadtests.quality.protocols import ordered, reading, split_said

Results = Mapping[str, Any]

WAYS = {
    "blend": "as served",
    "path": "path alone",
    "dense": "dense over everything",
    "item_cf": "item-CF, tuned",
    "fused": "all signals, no network",
}


def ranking(found: Results) -> str:
    """Draws a table of means over seeds, and one of the trainings; the strict split comes first."""
    rows, runs = [], []
    for label in ordered(list(found["parts"])):
        part = found["parts"][label]
        named = [reading(label).name, split_said(label, part)]
        for way, name in WAYS.items():
            if way in part.get("means", {}):
                mean = part["means"][way]
                rows.append([*named, name, *(mean_of_seeds(mean[m]) for m in ("recall@10", "ndcg@10"))])
        for name, figures in part.get("baselines", {}).items():
            rows.append([*named, name, *(f"{figures[m]:.4f}" for m in ("recall@10", "ndcg@10"))])
        runs += [[*named, *_run(seed, training)] for seed, training in part.get("seeds", {}).items()]
    trained = [
        "data",
        "split",
        "seed",
        "recall@10",
        "NDCG@10",
        "weights of path, dense score",
        "epochs, best",
        "minutes",
        "layers",
        "parameters",
    ]
    return "\n\n".join(
        [
            markdown(["data", "split", "ranked by", "recall@10", "NDCG@10"], rows),
            markdown(trained, runs),
            by_command(found),
        ]
    )


def _run(seed: str, one: Results) -> list[Any]:
    figures, epochs = one["figures"]["blend"], f"{one['epochs']}, {one['best_epoch']}"
    accuracy = [f"{figures[measure]:.4f}" for measure in ("recall@10", "ndcg@10")]
    shape = [one["network"]["layers"], f"{one['parameters']:,}"]
    minutes = f"{one['seconds'] / 60:.1f}"
    return [seed, *accuracy, _of_network(one), epochs, minutes, *shape]


def _of_network(one: Results) -> str:
    """The weights of path and dense score; before the ranker they were the two parts of a blend."""
    if "ranker" not in one:
        return f"{1 - one['blend']:.2g}, {one['blend']:.2g}"
    weights = one["ranker"]["groups"][0]["weights"]
    return ", ".join(f"{weights.get(name, 0.0):.2g}" for name in ("path", "dense"))


def curve(axes: Any, found: Results) -> None:
    """Plots validation NDCG@10 over the minutes of training: a colour for each data set, dashed if not strict."""
    drawn = [label for label in ordered(list(found["parts"])) if found["parts"][label].get("seeds")]
    of_data = dict.fromkeys(label.removeprefix("strict ") for label in drawn)
    colours = {name: f"C{place}" for place, name in enumerate(of_data)}
    for label in drawn:
        style = "-" if label.startswith("strict ") else "--"
        for place, one in enumerate(found["parts"][label]["seeds"].values()):
            minutes = [epoch["seconds"] / 60 for epoch in one["history"]]
            gained = [epoch["valid_ndcg@10"] for epoch in one["history"]]
            # A label that begins with an underscore is not in the legend.
            name = label if place == 0 else f"_{label}"
            axes.plot(minutes, gained, style, linewidth=1, color=colours[label.removeprefix("strict ")], label=name)
    axes.set_xlabel("minutes of training on one core")
    axes.set_ylabel("validation NDCG@10")
    axes.figure.legend(fontsize=6, loc="outside right upper")


def anchor(axes: Any, found: Results) -> None:
    """Plots validation NDCG@10 over the epochs of the peer, a line for each training."""
    for name, one in found["runs"].items():
        axes.plot([at["epoch"] for at in one["history"]], [at["ndcg@10"] for at in one["history"]], ".-", label=name)
    axes.set_xlabel("epochs of RecTools' SASRec")
    axes.set_ylabel("validation NDCG@10")
    axes.legend(fontsize=7)


def peers(found: Results) -> str:
    """Draws a row for each training of the peer, those with everybody held out first."""
    columns = ["data", "held out", "width", "seed", "epoch, of", "ended by", "recall@10", "NDCG@10",
               "validation NDCG@10", "CPU s an epoch"]  # fmt: skip
    rows = [
        [one["data"], one["held_out"], one["factors"], one["seed"], f"{one['epoch']}, {one['epochs']}",
         one.get("ended_by"), f"{one['test']['recall@10']:.4f}", f"{one['test']['ndcg@10']:.4f}",
         f"{one['valid_ndcg@10']:.4f}", f"{one['cpu_seconds_an_epoch']:.1f}"]
        for one in sorted(found["runs"].values(), key=lambda one: str(one["held_out"]))
    ]  # fmt: skip
    return markdown(columns, rows) + "\n\n" + by_command(found)


def speed(found: Results) -> str:
    """Draws a row for each trainer: seconds of an epoch, and its speed relative to the peer."""
    epochs = found["epochs"]
    peer = epochs["sasrec, RecTools"]["median"]
    rows = [
        [name, f"{one['median']:.1f}", f"{peer / one['median']:.1f}", len(one["seconds"])]
        for name, one in epochs.items()
    ]
    columns = [f"trained on {found['data']}", "CPU s an epoch (p50)", "times as fast as RecTools", "epochs timed"]
    return markdown(columns, rows) + "\n\n" + by_command(found)


SECTIONS: dict[str, Callable[[Results], str]] = {
    "quality_ranking": ranking,
    "quality_before": quality_strict.before,
    "quality_peers": peers,
    "quality_speed": speed,
    "quality_variants": quality_variants.variants,
    "quality_methods": methods.training_methods,
    "quality_lists": quality_lists.lists_and_fairness,
    "quality_segments": quality_lists.segments,
    "quality_conditions": quality_conditions.conditions,
    "quality_long_histories": quality_conditions.long_histories,
    "quality_candidates": quality_candidates.candidates,
    "quality_cold": quality_cold.cold,
    "quality_cold_folds": quality_cold.folds,
    "quality_rules": quality_strict.rules,
    "quality_cost": quality_strict.cost,
}
# The parts that the model card shows too.
CARD = {"quality_ranking": ranking, "quality_lists": quality_lists.fairness}


def wanted(files: Mapping[str, Results | None]) -> dict[str, Callable[[Any], None]]:
    """Returns the plots that can be drawn from the existing files."""
    ranked, listed = files.get("quality_ranking"), files.get("quality_lists")
    trained = files.get("quality_peers")
    plots = {} if listed is None else quality_lists.plots(listed)
    plots |= {} if trained is None else {"anchor": lambda axes: anchor(axes, trained)}
    return plots if ranked is None else {**plots, "training": lambda axes: curve(axes, ranked)}
