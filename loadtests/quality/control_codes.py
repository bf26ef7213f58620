"""What each control code does to lists and to fairness, and what a change of features costs.

    python -m loadtests.quality.control_codes effects --data DIR --work DIR [--styles attributes] [--epochs 8]
    python -m loadtests.quality.control_codes change-cost --artifact DIR

`effects` trains one model with all control codes of a data set, unless `--work` has it, and asks its test questions
without a code, with that of the target, and with one drawn for the user among the most frequent. `change-cost` encodes
full histories through an artefact: what a change of features costs where its encoder reads them.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loadtests.common.results import MEMORY, record, row
from loadtests.quality.code_effects import LIMITS, Asked, effects
from loadtests.quality.conditions import Variant, trained
from model.data.dataset import Dataset
from model.evaluation import list_qualities
from model.evaluation.evaluate import evaluate
from model.evaluation.question_context import QuestionContext, question_context
from model.evaluation.rankers import network_ranker
from model.network.gpt4rec import GPT4Rec
from model.training.conditions import Conditions
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.artifact.features import ContextVocabulary, EventArrays
from service.cli.outermost import run_command
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob

app = typer.Typer(add_completion=False)
MODULE = "python -m loadtests.quality.control_codes"
# Codes that are drawn: those of the most items.
DRAWN = 8


@app.command("effects")
def run_effects(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    styles: Annotated[str, typer.Option(help="Column that names styles: none, attributes or brand.")] = "none",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the training.")] = 8,
    size: Annotated[str, typer.Option(help="Size of the network.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of training and drawing.")] = 0,
    note: Annotated[bool, typer.Option(help="Whether to record the rows.")] = True,
) -> None:
    """What category, price band and style do to lists, where the data has them."""
    dataset = Dataset.load(data)
    base: dict[str, Any] = {"max_epochs": epochs, "patience": epochs, "size": size}
    variant = Variant({"control_known": 0.5, "styles": styles}, {})
    folder = work / f"codes-{dataset.name}-{styles}-{size}-{epochs}-{seed}".replace("/", "-")
    trainer, run = trained(dataset, folder, base, variant, seed)
    model = run.model()
    for slot in trainer.context.controls:
        if not trainer.context.values.get(slot):
            continue
        found = effects(asked_of(trainer, model, slot, seed))
        for name, value in found.items():
            criterion = f"{dataset.name}, {slot}: {name}"
            typer.echo(f"{criterion}: {value:.4f}")
            if note:
                command = (
                    f"{MODULE} effects --data {data.name} --work DIR --styles {styles} --epochs {epochs} --size {size}"
                )
                record(MEMORY, row(criterion, value, "", command, **LIMITS.get(name, {})))


def asked_of(trainer: Trainer, model: GPT4Rec, slot: str, seed: int) -> Asked:
    """Asks the test questions without a code of this slot, with the target's, and with a drawn one."""
    split, vocabulary, conditions = trainer.split, trainer.context, trainer.conditions
    table = codes_of(conditions, vocabulary, slot)
    rows, items = np.unique(table[table > 0], return_counts=True)
    drawn_from = rows[np.argsort(-items, kind="stable")[:DRAWN]]
    has = np.stack([(table == code).any(axis=1) for code in drawn_from])
    users = split.test.users
    drawn = np.random.default_rng(seed).integers(len(drawn_from), size=len(users))
    without = question_context(split, split.test, vocabulary, conditions)
    target = question_context(split, split.test, vocabulary, conditions, frozenset({slot}), seed=seed)
    place, context = vocabulary.slots.index(slot), without.context.copy()
    context[users, place] = drawn_from[drawn]
    questions = {"without": without, "target": target, "any": QuestionContext(context, without.gap_ms)}
    kept = trainer.config.repeats
    rankers = {name: network_ranker(model, trainer.vocabulary, questions=q) for name, q in questions.items()}
    found = evaluate(rankers, split, "test", exclude_history=not kept, samples=1).systems
    log, ends = split.sequences, split.test.history_end
    return Asked(
        without=found["without"].lists,
        target_code=found["target"].lists,
        any_code=found["any"].lists,
        has=has,
        drawn=drawn,
        targets=split.test.target,
        coded=target.context[users, place] > 0,
        lengths=ends - log.offsets[users],
        groups=list_qualities.popularity_group(split.train.item, log.n_items),
    )


def codes_of(conditions: Conditions, vocabulary: ContextVocabulary, slot: str) -> IntArray:
    """Returns the context rows [items, most] of the codes of each item, 0 where there are no more.

    Raises:
        KeyError: The slot has no control codes.
    """
    tables = {
        vocabulary.CONTROL: conditions.controls,
        vocabulary.PRICE: conditions.prices[:, None],
        vocabulary.STYLE: conditions.styles,
    }
    table: IntArray = tables[slot].numpy()
    return table


@app.command("change-cost")
def change_cost(
    artifact: Annotated[Path, typer.Option(help="Folder of an artefact.")],
    runs: Annotated[int, typer.Option(min=1, help="Histories that are encoded.")] = 200,
    note: Annotated[bool, typer.Option(help="Whether to record the row.")] = True,
) -> None:
    """The time of encoding a full history anew: what a change of features costs where the encoder reads them."""
    engine = Engine.open(artifact, device="cpu", threads=1)
    encoder = engine.artifact.network["encoder"]
    took = encoding_ms(engine, runs) if engine.artifact.manifest.get("encoder_reads_features") else 0.0
    criterion = f"encoder {encoder}, {engine.receptive_field} events: a change of features costs"
    typer.echo(f"{criterion}: {took:.3f} ms")
    if note:
        record(MEMORY, row(criterion, took, "ms", f"{MODULE} change-cost --artifact DIR"))


def encoding_ms(engine: Engine, runs: int) -> float:
    """Returns the median time of encoding a full history, in milliseconds."""
    vocabulary, rng, n = engine.artifact.vocabulary, np.random.default_rng(0), engine.receptive_field
    took = []
    for _ in range(runs):
        item = rng.integers(vocabulary.unknown_item, size=n)
        events = EventArrays(item, np.ones(n, np.int64), np.arange(n, dtype=np.int64) * 60_000)
        context = vocabulary.context.encode({name: next(iter(vocabulary.context.values[name]), None)
                                             for name in vocabulary.context.fields})  # fmt: skip
        began = time.perf_counter()
        engine.encode([EncodeJob(events=events, from_start=False, context=context)])
        took.append((time.perf_counter() - began) * 1000.0)
    return statistics.median(took)


if __name__ == "__main__":
    run_command(app)
