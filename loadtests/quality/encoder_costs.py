"""What encoders with a long memory gain on the window, and what they cost: time of an event, state, receptive field.

    python -m loadtests.quality.methods --data DIR --work DIR --seeds 0,1,2 --epochs 4 --only "encoder: gated linear"
    python -m loadtests.quality.encoder_costs --data DIR --work DIR --epochs 4

    for n in 50 200 1000; do
        python -m loadtests.quality.methods --data DIR --work DIR --seeds 0 --epochs 4 --length $n --only NAMES
        python -m loadtests.quality.encoder_costs --data DIR --work DIR --epochs 4 --length $n
    done

The first command trains and ranks; the second one exports the runs of its first seed and encodes one more event after a
full history through each graph, in turns, on one thread. A row's time is the median over the rounds of an encoder's
time over that of the window in the same round. Limits are those of `method_criteria`, written down before anything was
measured. All data sets and lengths are one table, in `results/quality_encoders.json`; `loadtests.quality.memory
--costs` adds the log with a needle. Rows are in `results/memory.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from export.artifact_writer import write
from export.from_run import parts_of
from export.publish import staging
from loadtests.common import results
from loadtests.engine.bench import histories, next_events
from loadtests.quality.histories_of_length import cut_to
from loadtests.quality.method_criteria import (
    AHEAD,
    DEFAULTS,
    LARGEST_STATE,
    LONGEST_EVENT,
    METHODS,
    REMEMBERING,
    worth_it,
)
from loadtests.quality.methods import FOUND, compared, folder_of, key_of, slug
from model.data.dataset import Dataset
from model.evaluation.baselines import Baselines, ItemCFConfig, fit_item_cf
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.artifact.scorers.popularity import Popularity
from service.cli.outermost import run_command
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.history.state_blob import VersionedState, pack
from service.store.log_version import VERSION_LENGTH

NAME = "quality_encoders"
EVENTS = 400  # of a history that fills windows and memories
ROUNDS = 300
LEFT_OUT = 20  # rounds before that
GAIN = ("difference", "low", "high", "p_holm")

console = Console(stderr=True)


def main(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs of `loadtests.quality.methods`.")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every training.")] = 20,
    size: Annotated[str, typer.Option(help="Size of the networks.")] = "small",
    teacher: Annotated[str, typer.Option(help="Size of the network that teaches, which names the folder.")] = "base",
    length: Annotated[int, typer.Option(min=0, help="Events kept of a history; 0: all.")] = 0,
) -> None:
    """Exports the encoders that were trained, times them in turns, and records what they gain and cost."""
    dataset = Dataset.load(data)
    key, name_of_data = key_of(dataset, size, epochs, length), dataset.name
    folder = folder_of(work, key, teacher)
    if length:
        dataset = cut_to(dataset, length)
    runs = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob(f"*/{FOUND}"))]
    ahead = {line["method"]: line for line in compared(runs, folder)}
    names = [DEFAULTS, *(name for name in METHODS if name in ahead and name in {*REMEMBERING})]
    if len(names) < 2:
        raise typer.BadParameter(f"{folder.name} has no run of {', '.join(REMEMBERING)}", param_hint="--work")
    first = {name: min(run["seed"] for run in runs if run["method"] == name) for name in names}
    costs = costs_of({name: folder / f"{slug(name)}-{first[name]}" for name in names}, dataset, length or EVENTS)
    own = [run["figures"]["dense"]["ndcg@10"] for run in runs if run["method"] == DEFAULTS]
    table = [{"encoder": name, **costs[name], **_gain(ahead.get(name), own)} for name in names]
    command = f"python -m loadtests.quality.encoder_costs --data {data.name} --work DIR --size {size} --epochs {epochs}"
    command += f" --length {length}" if length else ""
    part = {"data": name_of_data, "length": length or None, "table": table, "command": command}
    results.save_part(NAME, key, part, command=command)
    for row in rows_of(key, table, command):
        results.record(results.MEMORY, row)
        console.print(f"{row.criterion}: {row.value} {row.unit}, {row.holds}", highlight=False)


def costs_of(folders: Mapping[str, Path], dataset: Dataset, events: int) -> dict[str, dict[str, Any]]:
    """Returns of each run, by name, what `in_turns` measures of its exported graph.

    Args:
        folders: Folders of runs by name; times are ratios to the first.
        dataset: What they were trained on.
        events: Length of the history.
    """
    with ExitStack() as stack:
        engines = {name: exported(stack, Run.open(folder), dataset) for name, folder in folders.items()}
        return in_turns(engines, ROUNDS, events)


def exported(stack: ExitStack, run: Run, dataset: Dataset) -> Engine:
    """Returns an engine with the graphs of a run, whose files last as long as `stack`."""
    split = run.split(dataset)
    item_cf = fit_item_cf(split.train, config := ItemCFConfig("cosine", 50, 0.9))
    baselines = Baselines(item_cf, Popularity.fit(split.train.item, split.train.n_items), config, ())
    aside = stack.enter_context(staging(run.folder / "graphs"))
    write(parts_of(run, dataset, split, baselines), aside, "float32")
    return Engine(Artifact.open(aside), device="cpu", threads=1)


def in_turns(engines: Mapping[str, Engine], rounds: int, events: int = EVENTS) -> dict[str, dict[str, Any]]:
    """Returns of each engine the time of one more event, absolute and over that of the first, state and reach.

    Args:
        engines: Engines by name; times are ratios to the first.
        rounds: How many times each encodes.
        events: Length of the history before that event.
    """
    rng, jobs, found = np.random.default_rng(0), {}, {}
    for name, engine in engines.items():
        state = engine.encode(histories(engine, rng, 1, events))[0]
        if not isinstance(state, EncoderState):
            raise state
        layout = engine.state_layout
        stored = len(pack(VersionedState.of(state, "0" * VERSION_LENGTH, 0.0), layout))
        found[name] = {"state_bytes": stored, "reads": None if layout.remembers_trimmed else engine.receptive_field}
        jobs[name] = next_events(rng, [state])
    took: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + LEFT_OUT):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.encode(jobs[name])
            took[name].append((time.perf_counter() - began) * 1000.0)
    ms = {name: np.array(times[LEFT_OUT:]) for name, times in took.items()}
    first = next(iter(ms.values()))
    return {
        name: {**found[name], "event_ms": float(np.median(of)), "event_ratio": float(np.median(of / first))}
        for name, of in ms.items()
    }


def rows_of(key: str, table: list[dict[str, Any]], command: str) -> list[results.Row]:
    """Returns the rows of a table: gain, time and state of each encoder, and how many are worth it.

    Args:
        key: What the figures are named by.
        table: Lines of encoders; that of the window has no gain.
        command: The command that made them.
    """
    rows, worth = [], 0
    for line in table:
        where, low = f"encoders, {key}: {line['encoder']}", line["low"]
        rows.append(results.row(f"{where}, state", line["state_bytes"], "bytes", command, **LARGEST_STATE))
        if low is None:
            continue
        rows.append(results.row(f"{where}, NDCG@10 ahead of the window, lower end", low, "NDCG@10", command, **AHEAD))
        rows.append(
            results.row(f"{where}, time of an event over the window's", line["event_ratio"], "×", command,
                        **LONGEST_EVENT)
        )  # fmt: skip
        worth += worth_it(low, line["p_holm"], line["event_ratio"], line["state_bytes"])
    name = f"encoders, {key}: ahead of the window by more than chance, at its limits of time and state"
    return [*rows, results.row(name, worth, "encoders", command, at_least=1)]


def _gain(line: Mapping[str, Any] | None, own: list[float]) -> dict[str, Any]:
    """Returns NDCG@10 and its paired difference; of the window the mean of its own alone."""
    if line is None:
        return {"seeds": len(own), "figure": float(np.mean(own)), **dict.fromkeys(("questions", *GAIN))}
    of = line["ahead"]["ndcg@10"]
    return {"seeds": line["seeds"], "questions": line["questions"], "figure": line["ndcg@10"]["mean"],
            **{key: of[key] for key in GAIN}}  # fmt: skip


if __name__ == "__main__":
    run_command(main)
