"""Long histories: attention in a window against attention to everything, quality and cost.

    python -m loadtests.quality.long_histories --data DIR --work DIR [--lengths 50,200,1000] [--windows 50,200]
        [--minutes 10] [--seeds 0]

Users are cut to their newest events, so many as the length and the event to be found. Each length is trained with each
shorter window, and with one as long as itself: full attention. All are asked for the same events, and no list has an
item of the whole, uncut history. Costs are those of the exported graph on one thread. Whatever was trained is in
`--work` and is not trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from export.artifact_writer import write
from export.from_run import parts_of
from export.publish import staging
from loadtests.common.results import QUALITY, load, record, row, save
from loadtests.engine.bench import histories, next_events, time_runs
from loadtests.quality.histories_of_length import cut_to
from model.cli.training_progress import fit
from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.baselines import Baselines, ItemCFConfig, fit_item_cf
from model.evaluation.bootstrap import paired_bootstrap
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import network_ranker
from model.training.config import TrainConfig
from model.training.run_folder import Run, split_of
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.scorers.popularity import Popularity
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.history.state_blob import VersionedState, pack
from service.store.log_version import VERSION_LENGTH

NAME = "quality_long_histories"
COMMAND = "python -m loadtests.quality.long_histories --data DIR --work DIR"
# Chunks of this many windows, so that most positions of a chunk carry a loss.
CHUNK_WINDOWS = 4
LEAST_CHUNK = 200
SECONDS = 1.0  # of measuring each cost

console = Console(stderr=True)


def main(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    lengths: Annotated[str, typer.Option(help="Events kept of a history, separated by commas.")] = "50,200,1000",
    windows: Annotated[str, typer.Option(help="Windows, separated by commas; full attention is added.")] = "50,200",
    minutes: Annotated[float, typer.Option(min=0.01, help="Length of every training.")] = 10.0,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
) -> None:
    """Trains, evaluates and times every length and window, and compares each with full attention."""
    dataset = Dataset.load(data)
    whole = split_of(TrainConfig(), sequences(dataset))
    for seed in _numbers(seeds):
        for length in _numbers(lengths):
            for window in sorted({*(w for w in _numbers(windows) if w < length), length}):
                folder = work / f"{dataset.name}-{length}-{window}-{minutes:g}-{seed}"
                if not (folder / "found.json").exists():
                    found = one(dataset, whole, folder, length, window, minutes, seed)
                    write_aside(folder / "found.json", json.dumps(found).encode())
                keep(work, dataset.name, folder.name, json.loads((folder / "found.json").read_text("utf-8")))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def settings_of(length: int, window: int, seed: int) -> TrainConfig:
    """Chunks of a few windows, or of whole histories where those are shorter."""
    longest = max(window + 1, min(max(CHUNK_WINDOWS * window, LEAST_CHUNK), length + 1))
    return TrainConfig().updated({"network.window": window, "max_length": longest, "seed": seed, "max_epochs": 1000})


def one(
    dataset: Dataset, whole: Split, folder: Path, length: int, window: int, minutes: float, seed: int
) -> dict[str, Any]:
    """Returns everything about one training."""
    cut = cut_to(dataset, length)
    settings = settings_of(length, window, seed)
    resume = (folder / "checkpoint.safetensors").exists()
    trainer = Trainer(cut, folder, folder, settings, resume=resume)
    console.print(f"training {folder.name}", highlight=False)
    before, began = trainer.progress.step, time.process_time()
    fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds))
    steps = max(trainer.progress.step - before, 1)
    epoch_s = (time.process_time() - began) / steps * len(trainer.plan.epoch(0))
    run = Run.open(folder)
    ranker = network_ranker(run.model(), trainer.vocabulary, newest=length)
    result = evaluate({"gpt4rec": ranker}, whole, "test", samples=1).systems["gpt4rec"]
    np.savez(folder / "ranks.npz", allow_pickle=False, ranks=metrics.target_ranks(result.lists, whole.test.target))
    return {
        "data": dataset.name, "length": length, "window": window, "seed": seed, "minutes": minutes,
        "events": len(cut.events), "epochs": trainer.progress.step / len(trainer.plan.epoch(0)),
        "cpu_seconds_an_epoch": epoch_s, **costs(run, cut, trainer.split, folder, length),
        **{name: result.figures[name] for name in ("recall@10", "ndcg@10")},
    }  # fmt: skip


def costs(run: Run, dataset: Dataset, split: Split, folder: Path, length: int) -> dict[str, float]:
    """Of the exported graph: ms (p50) to encode a history of `length` events, and one more event; bytes of a state."""
    item_cf = fit_item_cf(split.train, config := ItemCFConfig("cosine", 50, 0.9))
    baselines = Baselines(item_cf, Popularity.fit(split.train.item, split.train.n_items), config, ())
    with staging(folder / "graphs") as aside:
        write(parts_of(run, dataset, split, baselines), aside, "float32")
        engine = Engine(Artifact.open(aside), device="cpu")
        rng = np.random.default_rng(0)
        jobs = histories(engine, rng, 1, length)
        state = engine.encode(jobs)[0]
        if not isinstance(state, EncoderState):
            raise state
        more = next_events(rng, [state])
        return {
            "encode_ms": float(np.median(time_runs(lambda: engine.encode(jobs), SECONDS))),
            "event_ms": float(np.median(time_runs(lambda: engine.encode(more), SECONDS))),
            "state_bytes": len(pack(VersionedState.of(state, "0" * VERSION_LENGTH, 0.0), engine.state_layout)),
        }


def keep(work: Path, data: str, name: str, found: Mapping[str, Any]) -> None:
    """Records a training, and the differences to full attention that it completes, over the seeds both have."""
    runs = {**(load(NAME) or {}).get("runs", {}), name: dict(found)}
    ours = [run for run in runs.values() if run["data"] == data]
    differences = [d for run in ours if (d := against_full(work, data, run, ours)) is not None]
    others = [d for d in (load(NAME) or {}).get("differences", []) if d["data"] != data]
    save(NAME, {"runs": runs, "differences": [*others, *differences]}, command=COMMAND)
    for d in differences:
        criterion = f"{data} cut to {d['length']}: recall@10 of a window of {d['window']} less that of full attention"
        record(QUALITY, row(criterion, d["recall@10"]["difference"], "", COMMAND))
    console.print(f"{name}: {found}", highlight=False)


def against_full(work: Path, data: str, run: Mapping[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Compares a window's row with full attention at the same length.

    Each user's value is the mean over the seeds on which both were trained. None for full attention itself, and if the
    other side is missing.
    """
    if run["window"] == run["length"]:
        return None
    alike = [one for one in runs if one["length"] == run["length"] and one["minutes"] == run["minutes"]]
    seeds = [
        sorted(one["seed"] for one in alike if one["window"] == window) for window in (run["window"], run["length"])
    ]
    both = [seed for seed in seeds[0] if seed in seeds[1]]
    if not both or run["seed"] != both[0]:
        return None
    found: dict[str, Any] = {"data": data, "length": run["length"], "window": run["window"], "seeds": len(both)}
    for name, measure in (("recall@10", metrics.recall), ("ndcg@10", metrics.ndcg)):
        ours, theirs = (
            np.mean([measure(_ranks(work, run, window, seed), 10) for seed in both], axis=0)
            for window in (run["window"], run["length"])
        )
        found[name] = asdict(paired_bootstrap(ours, theirs))
    return found


def _ranks(work: Path, run: Mapping[str, Any], window: int, seed: int) -> IntArray:
    folder = work / f"{run['data']}-{run['length']}-{window}-{run['minutes']:g}-{seed}"
    with np.load(folder / "ranks.npz", allow_pickle=False) as arrays:
        ranks: IntArray = arrays["ranks"]
        return ranks


if __name__ == "__main__":
    run_command(main)
