"""Every training method against the defaults on one data set, paired by seed.

    python -m loadtests.quality.methods --data DIR --work DIR [--seeds 0,1,2] [--epochs 20] [--only a,b]
    python -m loadtests.quality.methods --data DIR --work DIR --size tiny --teacher small --epochs 4      the short form
    python -m loadtests.quality.methods --data DIR --work DIR --other DIR --only "adapters 16"
    python -m loadtests.quality.methods --data DIR --work DIR --length 1000 --only "encoder: memory bank"

With `--length`, histories are cut to as many of the newest events, those who have so many are asked, and a training
goes over whole histories. The network alone ranks the whole catalogue for each test question; what scheduled sampling
trains is ranked by token paths. Runs and ranks are in `--work`, and neither is made again: a command that was
interrupted goes on. Figures, intervals and verdicts are in `results/quality_methods.json`, a row for each method in
`results/memory.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.quality.histories_of_length import cut_to, with_so_many
from loadtests.quality.kept_bytes import kept_bytes
from loadtests.quality.means import spread, with_holm
from loadtests.quality.method_criteria import BY_NAME, DEFAULTS, METHODS, OTHER, QUARTER, TEACHER, Method, verdict
from loadtests.quality.path_ranker import path_ranker
from model.cli.training_progress import fit
from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.bootstrap import Interval, paired_bootstrap
from model.evaluation.evaluate import Ranker, evaluate
from model.evaluation.rankers import network_ranker
from model.training.config import TrainConfig
from model.training.run_folder import CHECKPOINT, Run, split_of
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside

NAME = "quality_methods"
FOUND = "found.json"  # written last of a run: figures, time and bytes
PROCESSOR = "processor.json"  # processor seconds of an epoch
MEASURES = {"recall@10": metrics.recall, "ndcg@10": metrics.ndcg}
LISTS = ("coverage@10", "diversity@10")
ASKED = 2000  # test questions at most, the same for all methods

console = Console(stderr=True)


def main(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every training.")] = 20,
    only: Annotated[str, typer.Option(help="Methods, separated by commas; all by default.")] = "",
    size: Annotated[str, typer.Option(help="Size of the networks.")] = "small",
    teacher: Annotated[str, typer.Option(help="Size of the network that teaches.")] = "base",
    other: Annotated[Path | None, typer.Option(help="Data set of another shop, whose encoder adapters keep.")] = None,
    length: Annotated[int, typer.Option(min=0, help="Events kept of a history; 0: all.")] = 0,
) -> None:
    """Trains every method and the defaults, and compares them over the same questions."""
    dataset = Dataset.load(data)
    named = dataset.events["session_id"].is_not_null().any()
    names = chosen(only, has_other=other is not None, has_sessions=bool(named))
    key = f"{key_of(dataset, size, epochs, length)}{f'-from-{other.name}' if other else ''}"
    folder = folder_of(work, key_of(dataset, size, epochs, length), teacher, other)
    trial = Trial(dataset, data, folder, epochs, size, teacher, other, length)
    if length:
        cut = cut_to(dataset, length)
        whole, shortened = (split_of(TrainConfig(), sequences(one)) for one in (dataset, cut))
        trial = replace(trial, trained_on=cut, asked=with_so_many(whole, shortened, length))
    wanted = [(name, seed) for seed in map(int, seeds.split(",")) for name in names]
    todo = [(name, seed) for name, seed in wanted if not (folder / f"{slug(name)}-{seed}" / FOUND).exists()]
    for number, (name, seed) in enumerate(todo, 1):
        console.print(f"{number} of {len(todo)}: {name}, seed {seed}", highlight=False)
        _train_and_ask(trial, folder / f"{slug(name)}-{seed}", name, seed)
        summarise(trial, key)
    if not todo:
        summarise(trial, key)


def key_of(dataset: Dataset, size: str, epochs: int, length: int) -> str:
    """Returns what figures are named by."""
    return f"{dataset.name}{f'-{length}' if length else ''}-{size}-{epochs}"


def folder_of(work: Path, key: str, teacher: str, other: Path | None = None) -> Path:
    """Returns the folder of the runs."""
    return work / f"methods-{key}-of-{teacher}{f'-{other.name}' if other else ''}"


@dataclass(frozen=True, eq=False)
class Trial:
    """What all trainings of a command share.

    Attributes:
        dataset: The whole data set.
        data: Its folder.
        folder: Folder of the runs.
        epochs: Epochs of every training.
        size: Size of the networks.
        teacher: Size of the network that teaches.
        other: Data set of another shop.
        length: Events of the longest history; 0: any number.
        trained_on: The data set whose histories are cut; None where none is.
        asked: The questions of those who have so many events; None for all.
    """

    dataset: Dataset
    data: Path
    folder: Path
    epochs: int
    size: str
    teacher: str
    other: Path | None = None
    length: int = 0
    trained_on: Dataset | None = None
    asked: Split | None = None


def chosen(only: str, *, has_other: bool = True, has_sessions: bool = True) -> list[str]:
    """Returns the names of the methods to train, each after the one it is compared with.

    Args:
        only: Names, separated by commas; empty for all.
        has_other: Whether there is a data set of another shop; methods that need it are left out else.
        has_sessions: Whether events name their sessions; the method that reads the names is left out else.

    Raises:
        typer.BadParameter: A name is unknown, or needs what the data do not have.
    """
    asked = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := sorted(set(asked) - METHODS.keys()):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(METHODS)}", param_hint="--only")
    without = {name for name, method in METHODS.items() if OTHER in method.settings.values() and not has_other}
    if lacking := sorted(without & set(asked)):
        raise typer.BadParameter(f"{', '.join(lacking)}: give the data set of another shop", param_hint="--other")
    if BY_NAME in asked and not has_sessions:
        raise typer.BadParameter(f"{BY_NAME}: no event names its session", param_hint="--only")
    without |= set() if has_sessions else {BY_NAME}
    asked = asked or [name for name in METHODS if name not in without]
    needed = {DEFAULTS, *asked, *(METHODS[name].against for name in asked)}
    return [name for name in METHODS if name in needed]


def settings_of(method: Method, seed: int, epochs: int, size: str, runs: Path, length: int = 0) -> TrainConfig:
    """Returns the configuration of a training; patience never ends one, so that all have the same epochs.

    Args:
        method: The method.
        seed: The seed.
        epochs: Epochs of every training.
        size: Size of the network.
        runs: Folder of the runs, those of the teacher and of the other data set among them.
        length: Events of the longest history, which a chunk of the training holds whole; 0: chunks of the usual length.
    """
    stands_for = {
        TEACHER: str(runs / f"teacher-{seed}"), OTHER: str(runs / f"other-{seed}"), QUARTER: max(1, epochs // 4)
    }  # fmt: skip
    values = {key: stands_for.get(value, value) for key, value in method.settings.items()}
    if length:
        values["max_length"] = length + 1
    return TrainConfig().updated({"size": size, "max_epochs": epochs, "patience": epochs, "seed": seed, **values})


def _train_and_ask(trial: Trial, place: Path, name: str, seed: int) -> None:
    runs, method, length = trial.folder, METHODS[name], trial.length
    dataset = trial.trained_on or trial.dataset
    if TEACHER in method.settings.values():
        config = settings_of(Method(), seed, trial.epochs, trial.teacher, runs, length)
        trained(dataset, trial.data, runs / f"teacher-{seed}", config)
    if OTHER in method.settings.values() and trial.other is not None:
        config = settings_of(Method(), seed, trial.epochs, trial.size, runs)
        trained(Dataset.load(trial.other), trial.other, runs / f"other-{seed}", config)
    trainer = trained(dataset, trial.data, place, settings_of(method, seed, trial.epochs, trial.size, runs, length))
    model, split = Run.open(place).model(), trainer.split
    systems = {"dense": network_ranker(model, trainer.vocabulary, newest=length or None)}
    if name == DEFAULTS or method.by_path:
        systems["path"] = path_ranker(model, trainer.vocabulary, newest=length or None)
    if trial.asked is not None:
        split = replace(split, sequences=trial.asked.sequences, test=trial.asked.test)
    ranks, figures = _asked(systems, split, dataset, exclude_history=not trainer.config.repeats)
    for how, of_system in ranks.items():
        np.save(place / f"ranks-{how}.npy", of_system)
    p = trainer.progress
    found = {
        "method": name, "seed": seed, "figures": figures, "cpu_seconds_an_epoch": _processor_seconds(place),
        "kept_bytes": kept_bytes(trainer), "best_epoch": p.best_epoch + 1, "epochs": p.epoch,
    }  # fmt: skip
    write_aside(place / FOUND, json.dumps(found).encode())


def trained(dataset: Dataset, data: Path, folder: Path, config: TrainConfig) -> Trainer:
    """Trains, or goes on, to the last epoch of the configuration, and keeps what an epoch of this process took."""
    trainer = Trainer(dataset, data, folder, config, resume=(folder / CHECKPOINT).exists())
    before, began = trainer.progress.epoch, time.process_time()
    if before < config.max_epochs:
        fit(trainer, console, TimeLimit(None, used_s=trainer.progress.seconds))
        an_epoch = (time.process_time() - began) / max(1, trainer.progress.epoch - before)
        write_aside(folder / PROCESSOR, json.dumps(an_epoch).encode())
    return trainer


def _processor_seconds(folder: Path) -> float | None:
    file = folder / PROCESSOR
    return float(json.loads(file.read_text("utf-8"))) if file.exists() else None


def _asked(
    systems: Mapping[str, Ranker], split: Split, dataset: Dataset, *, exclude_history: bool
) -> tuple[dict[str, IntArray], dict[str, dict[str, float | None]]]:
    """Returns the ranks of the targets among the first ten, and the figures, by how the items were ranked."""
    some = Split(split.kind, split.sequences, split.train, split.valid, split.test.sample(ASKED))
    content = metrics.item_content(dataset.items, split.train.item_ids, dataset.category_kind)
    with console.status("evaluating"):
        found = evaluate(systems, some, "test", content=content, exclude_history=exclude_history, samples=1).systems
    ranks = {how: metrics.target_ranks(result.lists[:, :10], some.test.target) for how, result in found.items()}
    return ranks, {
        how: {key: result.figures.get(key) for key in (*MEASURES, *LISTS)} for how, result in found.items()
    }  # fmt: skip


def summarise(trial: Trial, key: str) -> None:
    """Records the table of what was trained so far, and a row for each method."""
    folder, command = trial.folder, _command(trial)
    runs = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob(f"*/{FOUND}"))]
    table = compared(runs, folder)
    if not table:
        return  # the training that the others are compared with was the first
    part = {"data": trial.dataset.name, "table": table, "command": command}
    results.save_part(NAME, key, part, command=command)
    for line in table:
        ratio = line["ndcg@10"]["mean"] / max(line["of_against"], 1e-9)
        criterion = f"methods, {key}: {line['method']}, NDCG@10 over {line['against']}"
        results.record(results.MEMORY, results.row(criterion, ratio, "×", command, **METHODS[line["method"]].limit))


def compared(runs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Returns a line for each method: means over its seeds, and how far it is ahead over the seeds that both have.

    Args:
        runs: What was found of each run.
        folder: Where their ranks are.
    """
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        by_name.setdefault(run["method"], {})[run["seed"]] = run
    lines = [
        _line(name, by_name, folder)
        for name, method in METHODS.items()
        if name != DEFAULTS and by_name.get(name, {}).keys() & by_name.get(method.against, {}).keys()
    ]
    for measure in MEASURES:
        ahead = with_holm([line["ahead"][measure] for line in lines])
        for line, corrected in zip(lines, ahead, strict=True):
            line["ahead"][measure] = corrected
    for line in lines:
        of = line["ahead"]["ndcg@10"]
        interval = Interval(of["difference"], of["low"], of["high"], of["p_value"])
        line["verdict"] = verdict(interval, of["p_holm"])
    return lines


def _line(name: str, by_name: Mapping[str, Mapping[int, Mapping[str, Any]]], folder: Path) -> dict[str, Any]:
    method = METHODS[name]
    seeds = sorted(by_name[name].keys() & by_name[method.against].keys())
    how, both = "path" if method.by_path else "dense", (name, method.against)

    def ranks(of: str, seed: int) -> IntArray:
        loaded: IntArray = np.load(folder / f"{slug(of)}-{seed}" / f"ranks-{how}.npy", allow_pickle=False)
        return loaded

    def mean(of: str, figure: str) -> float:
        return float(np.mean([by_name[of][seed][figure] for seed in seeds]))

    ahead = {}
    for measure, value in MEASURES.items():
        pair = (np.mean([value(ranks(of, s), 10) for s in seeds], axis=0) for of in both)
        ahead[measure] = asdict(paired_bootstrap(*pair))
    figures = {of: [by_name[of][seed]["figures"][how] for seed in seeds] for of in both}
    return {
        "method": name,
        "against": method.against,
        "ranked_by": how,
        "seeds": len(seeds),
        "questions": len(ranks(name, seeds[0])),
        **{measure: spread([one[measure] for one in figures[name]]) for measure in MEASURES},
        **{key: float(np.mean([one[key] or 0.0 for one in figures[name]])) for key in LISTS},
        **{f"{key}, against": float(np.mean([one[key] or 0.0 for one in figures[method.against]])) for key in LISTS},
        "of_against": float(np.mean([one["ndcg@10"] for one in figures[method.against]])),
        "seconds_ratio": _over(*([by_name[of][seed].get("cpu_seconds_an_epoch") for seed in seeds] for of in both)),
        "bytes_ratio": mean(name, "kept_bytes") / max(mean(method.against, "kept_bytes"), 1),
        "ahead": ahead,
    }


def _over(ours: list[float | None], theirs: list[float | None]) -> float | None:
    """Returns the ratio of two sums of processor time; None where a run was not timed."""
    pairs = [pair for pair in zip(ours, theirs, strict=True) if None not in pair]
    known = len(pairs) == len(ours)
    return sum(one or 0.0 for one, _ in pairs) / sum(one or 0.0 for _, one in pairs) if known else None


def slug(name: str) -> str:
    """Returns a name as part of a folder's."""
    return "".join(c if c.isalnum() else "-" for c in name)


def _command(trial: Trial) -> str:
    return (
        f"python -m loadtests.quality.methods --data {trial.data.name} --work DIR --size {trial.size} "
        f"--teacher {trial.teacher} --epochs {trial.epochs}{f' --other {trial.other.name}' if trial.other else ''}"
        f"{f' --length {trial.length}' if trial.length else ''}"
    )


if __name__ == "__main__":
    run_command(main)
