"""Every encoder under one trainer, one budget and one evaluation, through the graphs that serve.

    python -m loadtests.quality.variants --data DIR --work DIR [--minutes 10] [--seeds 0,1,2] [--only a,b]

Each training has the same minutes on one core and the same settings; encoders without a state read as many events as
GPT4Rec's own can, those with one have its layers and windows, and some a memory beside that. What was measured is in
`results/quality_variants.json` and is neither trained nor measured again; runs, artefacts and the ranks of every
question are in `--work`, and a run that was interrupted goes on.
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

from export.from_run import export_run
from loadtests.common import results
from loadtests.quality.means import spread, with_holm
from loadtests.quality.ranks import DECODING
from model.cli.training_progress import fit
from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.baselines import Baselines, fit_baselines, fit_repeat
from model.evaluation.bootstrap import paired_bootstrap
from model.evaluation.evaluate import Ranker, evaluate, item_cf_ranker, popularity_ranker, repeat_ranker
from model.evaluation.rankers import engine_ranker
from model.network.config import NetworkConfig
from model.network.encoders.registry import encoder_class
from model.training.config import TrainConfig
from model.training.defaults import resolve_defaults
from model.training.run_folder import CHECKPOINT, Run, split_of
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.cli.outermost import run_command
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from service.history import state_blob

NAME = "quality_variants"
OURS = "gpt4rec"
WHOLE = ("sasrec", "gru4rec", "bert4rec", "lstm_attention", "encoder_decoder", "gpt2rec")
STEPPED = ("window_attention", "gated_linear", "compressive", "memory_bank", "hierarchy")
ENCODERS = (OURS, *WHOLE, *STEPPED)
MEASURES = {"recall@10": metrics.recall, "ndcg@10": metrics.ndcg}
TIMED = 50

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


def settings(encoder: str, seed: int, dataset: Dataset) -> TrainConfig:
    """Returns the defaults, for as long as the minutes last.

    An encoder without a state gets the events that GPT4Rec's layers and windows reach, with its default layers.
    """
    config = TrainConfig(seed=seed, max_epochs=1000, patience=1000)
    if encoder not in WHOLE:
        return config if encoder == OURS else config.updated({"encoder": encoder})
    ours = resolve_defaults(config, split_of(config, sequences(dataset)).train)
    shape = NetworkConfig(1, (1,), 1, 1, 1, **ours.network_values())
    reach = encoder_class(OURS).receptive_field(shape)
    return config.updated({"encoder": encoder, "network.window": reach})


@app.command()
def variants(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of runs and artefacts.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="Length of every training.")] = 10.0,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    only: Annotated[str, typer.Option(help="Encoders, separated by commas; all by default.")] = "",
) -> None:
    """Trains, exports and evaluates every encoder, beside item-CF, popularity and repeat purchase."""
    dataset = Dataset.load(data)
    names = [name for name in only.split(",") if name] or list(ENCODERS)
    if unknown := sorted(set(names) - set(ENCODERS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(ENCODERS)}", param_hint="--only")
    key = f"{dataset.name}-{minutes:g}"
    folder = work / f"variants-{key}"
    for seed in map(int, seeds.split(",")):
        for encoder in names:
            if f"{encoder}-{seed}" not in _part(key)["runs"]:
                run = folder / f"{encoder}-{seed}"
                found = measured(dataset, data, run, settings(encoder, seed, dataset), minutes)
                _keep(key, minutes, dataset, "runs", run, found)
    if not _part(key)["baselines"]:
        split = Run.open(folder / f"{names[0]}-{seeds.split(',')[0]}").split(dataset)
        for name, found in baselines(split).items():
            _keep(key, minutes, dataset, "baselines", folder / name, found)
    _summarise(key, folder)


def measured(dataset: Dataset, data: Path, folder: Path, config: TrainConfig, minutes: float) -> dict[str, Any]:
    """Trains and exports once; returns the figures of the artefact."""
    trainer = Trainer(dataset, data, folder, config, resume=(folder / CHECKPOINT).exists())
    console.print(f"training {folder.name}", highlight=False)
    fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds))
    with console.status(f"exporting {folder.name}") as status:
        artifact, report = export_run(folder, folder / "artifacts", "float32", data, say=status.update)
        engine = Engine.open(artifact, device="cpu", threads=1)
        status.update(f"evaluating {folder.name}")
        figures, ranks = asked({config.encoder: engine_ranker(engine, DECODING)}, trainer.split)[config.encoder]
    p = trainer.progress
    return {
        "encoder": config.encoder,
        "seed": config.seed,
        "figures": figures,
        "ranks": ranks,
        "valid_ndcg@10": p.best_ndcg,
        "epochs": p.epoch,
        "best_epoch": p.best_epoch + 1,
        "seconds_an_epoch": p.seconds / max(p.epoch, 1),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "weights": report["ranker"]["weights"],
        "streams": engine.artifact.streaming,
        **cost(engine),
    }


def asked(
    systems: Mapping[str, Ranker], split: Split, *, exclude_history: bool = True
) -> dict[str, tuple[dict[str, Any], IntArray]]:
    """Returns figures at 10 on the test part, and the rank of every question's target among the first ten."""
    found = evaluate(systems, split, samples=1, exclude_history=exclude_history)
    out = {}
    for name, system in found.systems.items():
        ranks = metrics.target_ranks(system.lists[:, :10], split.test.target)
        figures = {measure: value for measure, value in system.figures.items() if measure.endswith("@10")}
        out[name] = (figures, ranks)
    return out


def cost(engine: Engine) -> dict[str, float]:
    """Returns median milliseconds to update a state of 50 events after one more, and the stored bytes."""
    n, artifact = 50, engine.artifact
    rng = np.random.default_rng(0)
    events = EventArrays(
        item=rng.integers(0, len(artifact.catalogue), n + 1),
        type=np.zeros(n + 1, np.int64),
        time_ms=1_700_000_000_000 + np.arange(n + 1) * 3_600_000,
    )
    first = EventArrays(events.item[:n], events.type[:n], events.time_ms[:n])
    before = engine.encode([EncodeJob(events=first, from_start=True)])[0]
    if isinstance(before, Exception):
        raise before
    job = (
        EncodeJob(state=before, events=events.after(n), from_start=False)
        if before.extends
        else EncodeJob(events=events, from_start=True)
    )
    seconds = []
    for _ in range(TIMED):
        began = time.perf_counter()
        after = engine.encode([job])[0]
        seconds.append(time.perf_counter() - began)
    assert isinstance(after, EncoderState)  # noqa: S101
    base = state_blob.VersionedState.of(after, "0" * 16, 0.0)
    stored = len(state_blob.pack(base, engine.state_layout))
    return {"event_ms": 1000 * float(np.median(seconds)), "state_bytes": stored}


def baselines(split: Split) -> dict[str, dict[str, Any]]:
    """Repeat purchase is asked with the history's items kept: without them it has nothing to say."""
    fitted: Baselines = fit_baselines(split)
    others = {
        "item-CF": item_cf_ranker(fitted.item_cf, fitted.popularity),
        "popularity": popularity_ranker(fitted.popularity),
    }
    repeat = {"repeat purchase, history kept": repeat_ranker(fit_repeat(split), fitted.popularity)}
    found = asked(others, split) | asked(repeat, split, exclude_history=False)
    return {name: {"figures": figures, "ranks": ranks} for name, (figures, ranks) in found.items()}


def table(part: Mapping[str, Any], ranks: Mapping[str, IntArray]) -> list[dict[str, Any]]:
    """One row a system, whose `ranks` are by the names of `part`.

    Figures are means over its seeds with a 95 % t-interval. `behind` is by how much GPT4Rec's own encoder is ahead over
    the seeds both have, with a bootstrap interval over users, and Holm's correction for all comparisons.
    """
    runs: list[Mapping[str, Any]] = list(part["runs"].values())
    ours = {run["seed"]: ranks[f"{OURS}-{run['seed']}"] for run in runs if run["encoder"] == OURS}
    rows = []
    for encoder in [name for name in ENCODERS if any(run["encoder"] == name for run in runs)]:
        mine = [run for run in runs if run["encoder"] == encoder]
        costs = {key: float(np.mean([run[key] for run in mine])) for key in ("seconds_an_epoch", "event_ms")}
        rows.append(
            {
                "system": encoder,
                "seeds": len(mine),
                **{measure: spread([run["figures"][measure] for run in mine]) for measure in MEASURES},
                "parameters": mine[0]["parameters"],
                "state_bytes": mine[0]["state_bytes"],
                **costs,
                "behind": _behind(ours, {run["seed"]: ranks[f"{encoder}-{run['seed']}"] for run in mine}),
            }
        )
    for name, one in part["baselines"].items():
        figures = {measure: spread([one["figures"][measure]]) for measure in MEASURES}
        behind = _behind(ours, dict.fromkeys(ours, ranks[name]))
        rows.append({"system": name, "seeds": 1, **figures, "behind": behind})
    for measure in MEASURES:
        compared = [row["behind"] for row in rows if row["system"] != OURS and row["behind"]]
        for one, corrected in zip(compared, with_holm([one[measure] for one in compared]), strict=True):
            one[measure] = corrected
    return rows


def _behind(ours: Mapping[int, IntArray], theirs: Mapping[int, IntArray]) -> dict[str, Any]:
    """How far a system with these ranks by seed is behind, by measure; empty where no seed is shared."""
    seeds = sorted(ours.keys() & theirs.keys())
    found = {}
    for measure, value in MEASURES.items() if seeds else ():
        pair = (np.mean([value(ranks[seed], 10) for seed in seeds], axis=0) for ranks in (ours, theirs))
        found[measure] = asdict(paired_bootstrap(*pair))
    return found


def _part(key: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"runs": {}, "baselines": {}}
    part: dict[str, Any] = (results.load(NAME) or {}).get("parts", {}).get(key, empty)
    return part


def _keep(key: str, minutes: float, dataset: Dataset, kind: str, place: Path, found: Mapping[str, Any]) -> None:
    """Records the figures, and the ranks beside `place`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    np.save(_ranks_of(place), found["ranks"])
    part = _part(key) | {"data": dataset.name, "minutes": minutes}
    part[kind] = part[kind] | {place.name: {name: value for name, value in found.items() if name != "ranks"}}
    _save(key, part)
    console.print(f"{place.name}: {json.dumps(found['figures'])}", highlight=False)


def _ranks_of(place: Path) -> Path:
    return place.with_name(place.name + ".ranks.npy")


def _save(key: str, part: Mapping[str, Any]) -> None:
    results.save_part(NAME, key, part, command=_command(part))


def _command(part: Mapping[str, Any]) -> str:
    return f"python -m loadtests.quality.variants --data DIR --work DIR --minutes {part['minutes']:g}"


def _summarise(key: str, folder: Path) -> None:
    """Records the table, and a row for each of its means."""
    part = _part(key)
    names = [*part["runs"], *part["baselines"]]
    part["table"] = table(part, {name: np.load(_ranks_of(folder / name), allow_pickle=False) for name in names})
    _save(key, part)
    for line in part["table"]:
        for measure in MEASURES:
            criterion = f"{part['data']}: {measure}, {line['system']}, {part['minutes']:g} minutes"
            results.record(results.QUALITY, results.row(criterion, line[measure]["mean"], "", _command(part)))


if __name__ == "__main__":
    run_command(app)
