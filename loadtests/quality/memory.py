"""A needle in a long history: which encoders remember what lies thousands of events back.

    python -m loadtests.quality.memory --work DIR [--encoders gpt4rec,memory_bank] [--length 5000] [--costs]

Somebody buys a key, looks at any number of distractors, then at a question, then at the answer that belongs to the key.
All encoders are trained on short distances (1 … 48 events, several keys one after the other in each history) by the
trainer of all models. Then they are asked over `--length` distractors, which are added chunk by chunk, as a service
does. So this shows what a memory holds, and not how far a training reaches: no gradient passes more than one history of
the training. The same questions at the longest distance of the training show whether the task was learned at all.

What is held to what is in `memory_criteria.py`; rows are in `results/memory.json`. `--costs` also times the exported
graphs as `encoder_costs` does, and adds recall and costs to its table. Runs are in `--work`, and none is trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from rich.console import Console

from loadtests.common.results import MEMORY, record, row, save_part
from loadtests.quality.encoder_costs import GAIN, NAME, costs_of
from loadtests.quality.memory_criteria import FOUND, WINDOW, guessed
from model.cli.training_progress import fit
from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset
from model.evaluation.bootstrap import holm, paired_bootstrap
from model.network.encoders.registry import ENCODERS, reads
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import dense_scores, encoder_input
from model.training.config import TrainConfig
from model.training.run_folder import CHECKPOINT, Run
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.features import EventArrays, Vocabulary, type_index
from service.cli.outermost import run_command

KEYS, DISTRACTORS = 16, 8
QUESTION = 2 * KEYS  # items: keys, the answer of each, the question, distractors
START_MS, PAUSE_MS = 1_700_000_000_000, 600_000  # first event; mean time between two
LONGEST_TRAINED = 48
LEAST_EVENTS = 100  # of a history of the training
# The window is small, so that even short distances ask for the memory: it is learned in minutes then.
SETTINGS = {
    "size": "tiny", "tokenizer": "atomic", "item_init": "random", "max_length": 200, "batch_tokens": 1000,
    "learning_rate": 5e-3, "network.layers": 1, "network.window": 4, "network.dropout": 0.0,
}  # fmt: skip

console = Console(stderr=True)


@dataclass(frozen=True)
class Trial:
    """Sizes of a measurement.

    Attributes:
        users: Histories of the training.
        questions: Histories that are asked about.
        epochs: Epochs of every training.
        seed: Seed of log, training and questions.
    """

    users: int = 1000
    questions: int = 128
    epochs: int = 8
    seed: int = 0


def main(
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    encoders: Annotated[
        str, typer.Option(help="Encoders, separated by commas.")
    ] = "gpt4rec,gated_linear,compressive,memory_bank,hierarchy",
    length: Annotated[int, typer.Option(min=1, help="Distractors between key and question.")] = 5000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every training.")] = 8,
    users: Annotated[int, typer.Option(min=10, help="Histories of the training.")] = 1000,
    questions: Annotated[int, typer.Option(min=1, help="Histories that are asked about.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    costs: Annotated[bool, typer.Option("--costs", help="Also export and time the encoders.")] = False,
) -> None:
    """Trains every encoder on short distances, asks it over a long one, and records what it finds."""
    names = chosen(encoders)
    if costs and names[0] != WINDOW:
        raise typer.BadParameter(f"{WINDOW} comes first: the others are compared with it", param_hint="--encoders")
    trial = Trial(users, questions, epochs, seed)
    command = f"python -m loadtests.quality.memory --work DIR --length {length} --epochs {epochs} --seed {seed}"
    found: dict[str, float] = {}
    hits: dict[str, Float64Array] = {}
    folders = {name: work / f"needle-{name}-{users}-{epochs}-{seed}" for name in names}
    for name, folder in folders.items():
        model, vocabulary = trained(folder, name, trial)
        close, hits[name] = (right(model, vocabulary, distance, trial) for distance in (LONGEST_TRAINED, length))
        near, far = float(close.mean()), float(hits[name].mean())
        found[name] = far
        limit = guessed(KEYS, questions) if name == WINDOW else {}
        console.print(f"{name}: recall@1 {near:.3f} over {LONGEST_TRAINED} events, {far:.3f} over {length}")
        record(MEMORY, row(f"needle, {LONGEST_TRAINED} events back: {name}, seed {seed}", near, "recall@1", command))
        record(MEMORY, row(f"needle, {length} events back: {name}, seed {seed}", far, "recall@1", command, **limit))
    if remembering := {name: value for name, value in found.items() if name != WINDOW}:
        best = max(remembering, key=remembering.__getitem__)
        name = f"needle, {length} events back: the best encoder, seed {seed}"
        record(MEMORY, row(name, remembering[best], "recall@1", command, **FOUND))
    if costs:
        part: dict[str, Any] = {
            "data": "a needle",
            "length": length,
            "unit": " recall@1",
            "command": f"{command} --costs",
        }
        part["table"] = with_costs(folders, hits, length, trial)
        save_part(NAME, f"needle-{length}-{seed}", part, command=part["command"])


def with_costs(
    folders: Mapping[str, Path], hits: Mapping[str, Float64Array], length: int, trial: Trial
) -> list[dict[str, Any]]:
    """Returns a line for each encoder: what it finds, how far it is ahead of the first one, and what it costs."""
    measured = costs_of(folders, needle_log(trial.users, trial.seed), length)
    first, *others = folders
    ahead = {name: paired_bootstrap(hits[name], hits[first]) for name in others}
    corrected = dict(zip(others, holm([one.p_value for one in ahead.values()]), strict=True))
    lines = []
    for name in folders:
        gain: dict[str, Any] = dict.fromkeys(GAIN)
        if name in ahead:
            gain = {"difference": ahead[name].difference, "low": ahead[name].low, "high": ahead[name].high}
            gain["p_holm"] = corrected[name]
        questions, figure = len(hits[name]), float(hits[name].mean())
        lines.append({"encoder": name, **measured[name], "seeds": 1, "questions": questions, "figure": figure, **gain})
    return lines


def chosen(names: str) -> list[str]:
    """Returns the encoders of a list of names.

    Raises:
        typer.BadParameter: A name is unknown.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := sorted(set(asked) - ENCODERS.keys()):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(ENCODERS)}", param_hint="--encoders")
    return asked


def episode(rng: np.random.Generator, key: int, distance: int) -> list[int]:
    """Returns a key, distractors, the question and the answer.

    Distractors follow each other in a ring, so that most of what is learned is not what nobody can know.
    """
    ring = (rng.integers(DISTRACTORS) + np.arange(distance)) % DISTRACTORS
    return [key, *(QUESTION + 1 + ring).tolist(), QUESTION, KEYS + key]


def needle_log(users: int, seed: int) -> Dataset:
    """Returns the log that is trained on: episodes of random distances, none of whose keys comes twice to a user.

    The event before the last is an answer, so that validation asks for answers.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, str, int, str, None, None]] = []
    for user in range(users):
        items: list[int] = []
        keys = iter(rng.permutation(KEYS).tolist())
        while len(items) < LEAST_EVENTS and (key := next(keys, None)) is not None:
            items += episode(rng, key, round(LONGEST_TRAINED ** rng.random()))
        items.append(QUESTION + 1)
        rows += [
            (f"u{user}", f"i{item}", time, kind_of(item), None, None)
            for item, time in zip(items, times(rng, len(items)).tolist(), strict=True)
        ]
    names = [f"i{item}" for item in range(QUESTION + 1 + DISTRACTORS)]
    catalogue = pl.DataFrame({"item_id": names}, schema={"item_id": pl.String()}).with_columns(
        [pl.lit(None, dtype).alias(name) for name, dtype in ITEM_SCHEMA.items() if name != "item_id"]
    )
    return Dataset.of(
        "needle",
        pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row"),
        catalogue.select(list(ITEM_SCHEMA)),
        pl.DataFrame({"user_id": [f"u{user}" for user in range(users)]}),
        has_time=True,
        source=f"built with seed {seed}",
    )


def kind_of(item: int) -> str:
    """Returns the type of an item's events: keys are bought, everything else is looked at."""
    return "purchase" if item < KEYS else "view"


def times(rng: np.random.Generator, n: int) -> IntArray:
    """Returns [n] times, ascending, with pauses that are exponentially distributed."""
    return START_MS + np.cumsum(rng.exponential(PAUSE_MS, n)).astype(np.int64)


def trained(folder: Path, encoder: str, trial: Trial) -> tuple[GPT4Rec, Vocabulary]:
    """Returns the network of a run, which is trained unless it is there, and its vocabulary."""
    config = TrainConfig().updated(
        {**SETTINGS, "encoder": encoder, "max_epochs": trial.epochs, "patience": trial.epochs, "seed": trial.seed}
    )
    dataset = needle_log(trial.users, trial.seed)
    trainer = Trainer(dataset, folder, folder, config, resume=(folder / CHECKPOINT).exists())
    if trainer.progress.epoch < config.max_epochs:
        console.print(f"training {folder.name}", highlight=False)
        fit(trainer, console, TimeLimit(None, used_s=trainer.progress.seconds))
    return Run.open(folder).model(), trainer.vocabulary


def right(model: GPT4Rec, vocabulary: Vocabulary, distance: int, trial: Trial) -> Float64Array:
    """Returns recall@1 [questions] over the whole catalogue after a key, `distance` distractors and the question."""
    rng = np.random.default_rng((trial.seed, distance))
    keys = np.arange(trial.questions) % KEYS
    place = np.array([vocabulary.item_index[f"i{item}"] for item in range(QUESTION + 1 + DISTRACTORS)])
    histories = []
    for key in keys.tolist():
        items = episode(rng, key, distance)[:-1]
        kinds = np.array([type_index(kind_of(item)) for item in items])
        histories.append(EventArrays(place[items], kinds, times(rng, len(items))))
    score = dense_scores(model, [encoder_input(one, reads(model.config), vocabulary) for one in histories])
    found: Float64Array = (score.argmax(dim=1).cpu().numpy() == place[KEYS + keys]).astype(np.float64)
    return found


if __name__ == "__main__":
    run_command(main)
