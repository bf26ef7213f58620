"""Positions, decays and patterns of attention, asked a day, a week and a month ahead, paired by user.

    python -m loadtests.quality.horizons --data DIR --work DIR [--seeds 0,1,2] [--epochs 20] [--only a,b]
    python -m loadtests.quality.horizons --data DIR --work DIR --sweep exponential,logarithmic        rates λ of a decay

The experiment is that of exercise 11.6: attention without times, a fixed decay and a learned one, the shapes of decays,
their rates and the positions beside them. Of each horizon: recall and NDCG; time sensitivity, which is how much lists
change and lose where the events of a history are spread evenly in time; novelty in bits, and the age of what is listed.
Student's paired t-test and the paired bootstrap over users, with Holm's correction over all trainings of a horizon, say
what is more than chance.

Runs and what they answered are in `--work`, and neither is made again. Figures are in `results/quality_horizons.json`,
a row for each training and horizon in `results/memory.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from scipy import stats

from loadtests.common import results
from loadtests.quality.horizon_criteria import (
    ALL,
    DECAYS,
    GRADIENT,
    HORIZONS,
    LEARNED,
    LEAST_QUESTIONS,
    POSITIONS,
    STANDARD,
    VARIANTS,
    Variant,
    rate_name,
    verdict,
)
from loadtests.quality.horizon_criteria import RATES as SWEPT
from loadtests.quality.horizon_questions import ahead, changed, evened, first_lists, item_ages
from loadtests.quality.means import spread
from loadtests.quality.methods import trained
from model.data.dataset import Dataset
from model.evaluation import metrics
from model.evaluation.bootstrap import holm, paired_bootstrap
from model.training.config import TrainConfig
from model.training.run_folder import Run
from service.artifact.array_types import Float64Array
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside

NAME = "quality_horizons"
FOUND = "found.json"  # written last of a run
ASKED = 2000  # questions of a horizon at most, the same for all trainings
MEASURES = ("recall@10", "ndcg@10")
OF_LISTS = ("changed by even times", "ndcg@10 lost to even times", "novelty@10", "age@10, days")

console = Console(stderr=True)


def main(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`, with times.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every training.")] = 20,
    only: Annotated[str, typer.Option(help="Trainings, separated by semicolons; all but sweeps by default.")] = "",
    sweep: Annotated[str, typer.Option(help=f"Decays whose rates are swept: {', '.join(DECAYS)}.")] = "",
    size: Annotated[str, typer.Option(help="Size of the networks.")] = "small",
) -> None:
    """Trains every variant, asks all horizons, and compares."""
    dataset = Dataset.load(data)
    if not dataset.has_time:
        raise typer.BadParameter("the data set has no times, so nothing lies a day ahead", param_hint="--data")
    trial = Trial(dataset, data, work / f"horizons-{dataset.name}-{size}-{epochs}", epochs, size)
    wanted = [(name, seed) for seed in map(int, seeds.split(",")) for name in chosen(only, sweep)]
    todo = [(name, seed) for name, seed in wanted if not (trial.place(name, seed) / FOUND).exists()]
    for number, (name, seed) in enumerate(todo, 1):
        console.print(f"{number} of {len(todo)}: {name}, seed {seed}", highlight=False)
        train_and_ask(trial, name, seed)
    summarise(trial)


@dataclass(frozen=True, eq=False)
class Trial:
    """What all trainings of a command share."""

    dataset: Dataset
    data: Path
    folder: Path
    epochs: int
    size: str

    def place(self, name: str, seed: int) -> Path:
        """Returns the folder of a run."""
        return self.folder / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"

    @property
    def key(self) -> str:
        """What figures of this trial are named by."""
        return f"{self.dataset.name}-{self.size}-{self.epochs}"

    @property
    def command(self) -> str:
        """The command that makes the figures."""
        return (
            f"python -m loadtests.quality.horizons --data {self.data.name} --work DIR --size {self.size} "
            f"--epochs {self.epochs}"
        )


def chosen(only: str, sweep: str) -> list[str]:
    """Returns the names of the trainings, with those they are compared with.

    Raises:
        typer.BadParameter: A name is unknown.
    """
    asked = [name.strip() for name in only.split(";") if name.strip()]
    swept = [kind.strip() for kind in sweep.split(",") if kind.strip()]
    if unknown := sorted(set(asked) - ALL.keys()):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {'; '.join(ALL)}", param_hint="--only")
    if unknown := sorted(set(swept) - set(DECAYS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(DECAYS)}", param_hint="--sweep")
    asked += [rate_name(kind, rate) for kind in swept for rate in SWEPT]
    needed = set(asked or VARIANTS)
    needed |= {ALL[name].against for name in needed if ALL[name].against} | {STANDARD}
    return [name for name in ALL if name in needed]


def settings_of(variant: Variant, seed: int, epochs: int, size: str) -> TrainConfig:
    """Returns the configuration of a training; patience never ends one, so that all have the same epochs."""
    values = {f"network.{key}": value for key, value in variant.network.items()}
    values |= {f"methods.{key}": value for key, value in variant.methods.items()}
    fixed = {"size": size, "max_epochs": epochs, "patience": epochs, "seed": seed, "encoder": "window_attention"}
    return TrainConfig().updated({**fixed, **values})


def train_and_ask(trial: Trial, name: str, seed: int) -> None:
    """Trains once, and keeps what every question of every horizon was answered."""
    place = trial.place(name, seed)
    trainer = trained(trial.dataset, trial.data, place, settings_of(ALL[name], seed, trial.epochs, trial.size))
    model, split = Run.open(place).model(), trainer.split
    information = metrics.self_information(split.train.item, split.train.n_items)
    counts: dict[str, int] = {}
    for horizon, (least, less) in HORIZONS.items():
        asked = ahead(split, least, less, ASKED)
        counts[horizon] = len(asked)
        if len(asked) < LEAST_QUESTIONS:
            continue
        questions = asked.questions
        with console.status(f"asking a {horizon} ahead"):
            lists = first_lists(trainer, model, split.sequences, asked)
            even = first_lists(trainer, model, evened(split.sequences, questions), asked)
        ranks, of_even = (metrics.target_ranks(one, questions.target) for one in (lists, even))
        ndcg = metrics.ndcg(ranks, 10)
        values = (
            metrics.recall(ranks, 10),
            ndcg,
            changed(lists, even),
            ndcg - metrics.ndcg(of_even, 10),
            metrics.novelty(lists, 10, information),
            item_ages(split.train, lists, split.sequences.time_ms[questions.history_end - 1]),
        )
        np.save(place / f"{horizon}.npy", np.stack(values))
    write_aside(place / FOUND, json.dumps({"training": name, "seed": seed, "questions": counts}).encode())


def summarise(trial: Trial) -> None:
    """Records the tables of what was trained so far, and a row for each training and horizon."""
    runs = [json.loads(file.read_text("utf-8")) for file in sorted(trial.folder.glob(f"*/{FOUND}"))]
    counts = runs[0]["questions"]
    tables = {horizon: table(trial, runs, horizon) for horizon, n in counts.items() if n >= LEAST_QUESTIONS}
    part = {
        "data": trial.dataset.name, "questions": counts, "tables": tables, "gradient": gradient(tables),
        "command": trial.command,
        "interactions": {horizon: interactions(trial, runs, horizon) for horizon in tables},
    }  # fmt: skip
    results.save_part(NAME, trial.key, part, command=trial.command)
    for horizon, lines in tables.items():
        for line in lines:
            ratio = line["ndcg@10"]["mean"] / max(line["of_against"], 1e-9)
            criterion = f"horizons, {trial.key}, a {horizon} ahead: {line['training']}, NDCG@10 over {line['against']}"
            limit = ALL[line["training"]].limit
            results.record(results.MEMORY, results.row(criterion, ratio, "×", trial.command, **limit))
    if part["gradient"] is not None:
        criterion = f"horizons, {trial.key}: {LEARNED}, gain in NDCG@10 a day ahead less that a month ahead"
        results.record(results.MEMORY, results.row(criterion, part["gradient"], "", trial.command, **GRADIENT))


def gradient(tables: Mapping[str, list[dict[str, Any]]]) -> float | None:
    """Returns how much more the learned decay gains a day ahead than a month ahead; None where either is missing."""
    gains = {
        horizon: line["ahead"]["ndcg@10"]["difference"]
        for horizon, lines in tables.items()
        for line in lines
        if line["training"] == LEARNED
    }
    return gains["day"] - gains["month"] if {"day", "month"} <= gains.keys() else None


def interactions(trial: Trial, runs: list[dict[str, Any]], horizon: str) -> list[dict[str, Any]]:
    """Returns for each kind of positions how much more the learned decay gains with them than with rotary ones.

    Args:
        trial: Where the answers are.
        runs: What was found of each run.
        horizon: Which questions.
    """
    lines = []
    for name in POSITIONS:
        four = (f"positions: {name}", f"positions: {name}, no decay", LEARNED, STANDARD)
        seeds = sorted(set.intersection(*(_seeds(runs).get(of, set()) for of in four)))
        if seeds:
            row = MEASURES.index("ndcg@10")
            with_decay, without, rotary, plain = (_values(trial, of, seeds, horizon)[:, row].mean(0) for of in four)
            lines.append({"positions": name, **paired(with_decay - without, rotary - plain)})
    return lines


def _seeds(runs: list[dict[str, Any]]) -> dict[str, set[int]]:
    seeds: dict[str, set[int]] = {}
    for run in runs:
        seeds.setdefault(run["training"], set()).add(run["seed"])
    return seeds


def _values(trial: Trial, name: str, seeds: list[int], horizon: str) -> Float64Array:
    """What every question was answered, [seeds, measures, questions]."""
    return np.stack([np.load(trial.place(name, seed) / f"{horizon}.npy", allow_pickle=False) for seed in seeds])


def table(trial: Trial, runs: list[dict[str, Any]], horizon: str) -> list[dict[str, Any]]:
    """Returns a line for each training: its means, and how far it is ahead over the seeds that both have.

    Args:
        trial: Where the answers are.
        runs: What was found of each run.
        horizon: Which questions.
    """
    seeds = _seeds(runs)
    names = [
        name for name, variant in ALL.items()
        if variant.against and seeds.get(name, set()) & seeds.get(variant.against, set())
    ]  # fmt: skip
    lines = [_line(trial, name, sorted(seeds[name] & seeds[ALL[name].against]), horizon) for name in names]
    for measure in MEASURES:
        for test in ("p_bootstrap", "p_t"):
            corrected = holm([line["ahead"][measure][test] for line in lines])
            for line, p in zip(lines, corrected, strict=True):
                line["ahead"][measure][f"{test}_holm"] = p
    for line in lines:
        of = line["ahead"]["ndcg@10"]
        line["verdict"] = verdict(of["difference"], (of["p_bootstrap_holm"], of["p_t_holm"]))
    return lines


def _line(trial: Trial, name: str, seeds: list[int], horizon: str) -> dict[str, Any]:
    against = ALL[name].against
    ours, theirs = (_values(trial, of, seeds, horizon) for of in (name, against))
    row = {measure: place for place, measure in enumerate((*MEASURES, *OF_LISTS))}
    return {
        "training": name,
        "against": against,
        "seeds": len(seeds),
        **{measure: spread(ours[:, row[measure]].mean(1).tolist()) for measure in MEASURES},
        "of_against": float(theirs[:, row["ndcg@10"]].mean()),
        **{measure: float(ours[:, row[measure]].mean()) for measure in OF_LISTS},
        **{f"{measure}, against": float(theirs[:, row[measure]].mean()) for measure in OF_LISTS},
        "ahead": {m: paired(ours[:, row[m]].mean(0), theirs[:, row[m]].mean(0)) for m in MEASURES},
    }


def paired(ours: Float64Array, theirs: Float64Array) -> dict[str, float]:
    """Returns the mean difference of two values of each user, its bootstrap interval, and the p-value of each test."""
    interval = asdict(paired_bootstrap(ours, theirs))
    p_bootstrap = interval.pop("p_value")
    alike = bool(np.ptp(ours - theirs) == 0)  # the t-test is not defined where all differences are equal
    p_t = p_bootstrap if alike else float(stats.ttest_rel(ours, theirs).pvalue)
    return {**interval, "p_bootstrap": p_bootstrap, "p_t": p_t}


if __name__ == "__main__":
    run_command(main)
