"""Do defaults by rule transfer? Each data set is left out once, and the rule's thresholds come from the others alone.

    python -m loadtests.quality.rules --data DIR --data DIR ... --work DIR [--minutes 5] [--seeds 0] [--only a,b]

On every data set each setting of a small grid of regularisation is trained for at most `--minutes` of processor time,
with the last event but one of everybody held out. A rule looks at one figure of the data (events of an item or of a
user, or what tuned item-CF reaches on validation, a probe of how regular the log is) and takes one setting below a
threshold and another from there on. For each data set, figure, threshold and both settings are chosen by the mean loss
on the other data sets; the table shows what that rule then loses there against the best of the grid, chosen on the data
set's own validation, beside the loss of the defaults as they are shipped. Figures are those of the dense score of the
best epoch. Finished trainings are kept in `--work`, and an interrupted one is resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from loadtests.common import results
from model.cli.training_progress import fit
from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Split, leave_one_out
from model.evaluation.baselines import fit_baselines
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import network_ranker
from model.training.config import TrainConfig
from model.training.defaults import resolve_defaults
from model.training.run_folder import CHECKPOINT, Run
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside

NAME = "quality_rules"
COMMAND = "python -m loadtests.quality.rules --data DIR --data DIR --work DIR"
MINUTES = 5.0
SHIPPED = "defaults"
# Name → what the training changes of the defaults; the first is the defaults by rule as they are.
GRID: Mapping[str, Mapping[str, Any]] = {
    SHIPPED: {},
    "dropout .3": {"network.dropout": 0.3},
    "dropout .5": {"network.dropout": 0.5},
    "dropout .5, weight decay .2": {"network.dropout": 0.5, "weight_decay": 0.2},
    "dropout .5, items dropped .1": {"network.dropout": 0.5, "item_dropout": 0.1},
    "dropout .5, 64 wide": {"network.dropout": 0.5, "network.d_model": 64, "network.d_ff": 128},
    "dropout .5, 10 epochs": {"network.dropout": 0.5, "max_epochs": 10},
    "dropout .3, one layer": {"network.dropout": 0.3, "network.layers": 1},
    "dropout .3, two layers": {"network.dropout": 0.3, "network.layers": 2},
}

app = typer.Typer(add_completion=False)
console = Console(stderr=True)

# Data set → setting → its figure.
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Rule:
    """Takes `below` where a figure of the data is less than `threshold`, else `above`."""

    figure: str
    threshold: float
    below: str
    above: str

    def setting(self, figures: Mapping[str, float]) -> str:
        """Returns the setting for a data set with these figures."""
        return self.below if figures[self.figure] < self.threshold else self.above

    def __str__(self) -> str:
        if self.below == self.above:
            return f"always {self.above}"
        return f"{self.below} below {self.threshold:.3g} {self.figure}, else {self.above}"


@app.command()
def rules(
    data: Annotated[list[Path], typer.Option(help="Data set of `gpt4rec data`; name several.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; finished ones are reused.")],
    minutes: Annotated[
        float, typer.Option(min=0.001, help="Longest training, in minutes of processor time.")
    ] = MINUTES,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    only: Annotated[str, typer.Option(help=f"Settings besides {SHIPPED!r}, separated by semicolons.")] = "",
) -> None:
    """Trains the grid on every data set, and judges rules by leaving one data set out."""
    names = _chosen(only)
    if len(data) < 3:
        raise typer.BadParameter("a rule needs two data sets besides the one that is left out", param_hint="--data")
    numbers = [int(part) for part in seeds.split(",")]
    total, done = len(data) * len(names) * len(numbers), 0
    found: dict[str, dict[str, Any]] = {}
    for where in data:
        dataset = Dataset.load(where)
        folder = work / f"rules-{dataset.name}-{dataset.fingerprint[:8]}-{minutes:g}m"
        split = leave_one_out(sequences(dataset))
        of_data = figures_of(split, folder / "data.json")
        for name in names:
            for seed in numbers:
                done += 1
                console.print(f"{done}/{total} {dataset.name}, {name}, seed {seed}", highlight=False)
                setting = SHIPPED if same_as_shipped(name, split.train) else name
                figures = trained(dataset, where, folder / f"{_slug(setting)}-{seed}", setting, seed, minutes)
                found.setdefault(dataset.name, {}).setdefault(name, {})[str(seed)] = {**figures, "data": of_data}
    part = judged(found)
    command = " ".join([COMMAND, f"--minutes {minutes:g}", f"--seeds {seeds}", *([f"--only '{only}'"] if only else [])])
    results.save(NAME, {"minutes": minutes, "runs": found, **part}, command=command)
    record(part, command)


def _chosen(only: str) -> list[str]:
    names = [name.strip() for name in only.split(";") if name.strip()]
    if unknown := sorted(set(names) - set(GRID)):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {'; '.join(GRID)}", param_hint="--only")
    return [name for name in GRID if name == SHIPPED or name in names or not names]


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def trained(dataset: Dataset, data: Path, folder: Path, name: str, seed: int, minutes: float) -> dict[str, Any]:
    """Trains one setting once; returns NDCG@10 on validation and test, and the figures of the data."""
    kept = folder / "figures.json"
    if not kept.exists():
        config = _config(name, seed)
        trainer = Trainer(dataset, data, folder, config, resume=(folder / CHECKPOINT).exists())
        fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds, clock=time.process_time))
        ranker = network_ranker(Run.open(folder).model(), trainer.vocabulary)
        test = evaluate({name: ranker}, trainer.split, "test", samples=1).systems[name].figures
        p = trainer.progress
        figures = {
            "valid": p.best_ndcg,
            "test": test["ndcg@10"],
            "test_recall": test["recall@10"],
            "epochs": p.epoch,
            "best_epoch": p.best_epoch + 1,
        }
        write_aside(kept, json.dumps(figures).encode())
    loaded: dict[str, Any] = json.loads(kept.read_text("utf-8"))
    return loaded


def _config(name: str, seed: int) -> TrainConfig:
    return TrainConfig(validation_users=0, repeats=False, seed=seed).updated(GRID[name])


def same_as_shipped(name: str, train: Sequences) -> bool:
    """Returns whether a setting is what the defaults by rule take on this training part anyway."""
    return resolve_defaults(_config(name, 0), train) == resolve_defaults(_config(SHIPPED, 0), train)


def figures_of(split: Split, kept: Path) -> dict[str, float]:
    """Returns what a rule may look at, and keeps it in a file, since the probe takes a while.

    These are the mean events of a user, those of an item that has any, and NDCG@10 of tuned item-CF on validation.
    """
    if not kept.exists():
        train = split.train
        found = {
            "events a user": train.n_events / max(1, train.n_users),
            "events an item": train.n_events / max(1, len(np.unique(train.item))),
            "NDCG@10 of item-CF": max(trial.ndcg_at_10 for trial in fit_baselines(split).trials),
        }
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_aside(kept, json.dumps(found).encode())
    loaded: dict[str, float] = json.loads(kept.read_text("utf-8"))
    return loaded


def judged(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns a row for each data set: the rule made from the others, its choice, and the losses.

    `found`: data set → setting → seed → figures. A loss is 1 − figure / figure of the best of the grid on validation.
    """
    mean = {
        part: {
            data: {name: float(np.mean([one[part] for one in runs.values()])) for name, runs in by_name.items()}
            for data, by_name in found.items()
        }
        for part in ("valid", "test")
    }
    figures = {data: next(iter(next(iter(by_name.values())).values()))["data"] for data, by_name in found.items()}
    best = {data: max(by_name, key=by_name.__getitem__) for data, by_name in mean["valid"].items()}
    rows = []
    for data in found:
        rule = best_rule(mean["valid"], figures, [other for other in found if other != data])
        choice = rule.setting(figures[data])
        rows.append(
            {
                "data": data,
                "figures": figures[data],
                "rule": str(rule),
                "choice": choice,
                "best": best[data],
                "valid": {name: mean["valid"][data][name] for name in (choice, best[data], SHIPPED)},
                "loss": {part: loss(mean[part][data], choice, best[data]) for part in mean},
                "loss_shipped": {part: loss(mean[part][data], SHIPPED, best[data]) for part in mean},
            }
        )
    return {"rows": rows, "rule": str(best_rule(mean["valid"], figures, list(found)))}


def best_rule(valid: Figures, figures: Figures, among: Sequence[str]) -> Rule:
    """Returns the rule with the least mean loss on some data sets; the simplest and first of equal ones.

    Args:
        valid: NDCG@10 on validation of every setting.
        figures: Figures of the data.
        among: The data sets that the rule is made from.
    """

    def lost(rule: Rule) -> float:
        losses = []
        for data in among:
            row = valid[data]
            losses.append(loss(row, rule.setting(figures[data]), max(row, key=row.__getitem__)))
        return float(np.mean(losses))

    return min(_rules(list(valid[among[0]]), figures, among), key=lambda rule: round(lost(rule), 9))


def _rules(settings: Sequence[str], figures: Figures, among: Sequence[str]) -> Iterator[Rule]:
    """Yields the constant rules, then those that divide the data sets between two of their figures."""
    names = list(figures[among[0]])
    for setting in settings:
        yield Rule(names[0], 0.0, setting, setting)
    for name in names:
        values = sorted({figures[data][name] for data in among})
        for low, high in pairwise(values):
            for below in settings:
                for above in settings:
                    if below != above:
                        yield Rule(name, float(np.sqrt(low * high)), below, above)


def loss(row: Mapping[str, float], choice: str, best: str) -> float:
    """Returns the share of the best setting's figure that a choice loses; negative where it has the better figure."""
    return 1 - row[choice] / row[best] if row[best] else 0.0


def record(part: Mapping[str, Any], command: str) -> None:
    """Records a row for each loss, and shows the table."""
    for row in part["rows"]:
        for where in ("valid", "test"):
            said = f"strict {row['data']}: NDCG@10 lost by the rule of the other data sets, {where}"
            results.record(results.QUALITY, results.row(said, row["loss"][where], "", command))
        console.print(
            f"{row['data']}: {row['choice']} ({row['rule']}) loses {row['loss']['valid']:.1%} of {row['best']} on "
            f"validation, {row['loss']['test']:.1%} on test; the defaults {row['loss_shipped']['valid']:.1%}",
            highlight=False,
        )


if __name__ == "__main__":
    run_command(app)
