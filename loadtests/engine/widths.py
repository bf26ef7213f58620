"""What runs as narrow as the export measured cost and list, beside runs as wide as policies plan them.

    python -m loadtests.engine.widths --artifact DIR --run RUN --data DATA [--rounds 20] [--no-record]

- cost: processor time of a row, at batch 1 and 32, the two in turns on one thread, random states and signals
- lists: on test questions, the share of places with the same item as in runs as planned and as in the widest, and
  recall@10 and NDCG@10; without a filter, gap and context unknown
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.common.report import table
from loadtests.engine.decoder_cases import STATES, jobs
from loadtests.engine.paired_timing import Timed, paired
from model.data.split import Split
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import engine_ranker
from model.evaluation.report import SystemResult
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.artifact.graphs.run_sizes import RunSizes, Size
from service.cli.outermost import run_command
from service.engine.decoding import MAX_WIDTH, Decoding, joined_width
from service.engine.engine import Engine
from service.engine.run_groups import result_of

NAME = "widths"
K = 10
BATCHES = (1, 32)
# A beam without a number of candidates, one that demands 50 of them, and the narrowest.
CASES = {
    "beam": Decoding("beam", demanded=False), "beam, 50 demanded": Decoding("beam"), "greedy": Decoding("greedy"),
}  # fmt: skip
METRICS = ("recall@10", "ndcg@10")

# Every list of ten in a run of the greatest size.
_WIDEST = Decoding("beam", beam_width=MAX_WIDTH)
_WIDEST_SIZES = RunSizes({Size(MAX_WIDTH, joined_width(K, MAX_WIDTH)): Size(MAX_WIDTH, MAX_WIDTH)})


def batch_case(engine: Engine, decoding: Decoding, rows: int) -> Timed:
    """Returns a case that decodes a batch of lists in one run."""
    asked = jobs(engine, decoding=decoding)

    def one(number: int) -> object:
        batch = [asked[(number * rows + row) % STATES] for row in range(rows)]
        return [result_of(result) for result in engine.decode(batch)]

    return one


def cost(artifact: Artifact, rounds: int) -> dict[str, Any]:
    """Measures milliseconds of processor time of a row, by strategy and batch, and the ratio measured ÷ planned."""
    engines = {name: Engine(artifact, device="cpu", threads=1) for name in ("planned", "measured")}
    engines["planned"].set_run_sizes(RunSizes())
    found: dict[str, Any] = {}
    for (strategy, decoding), rows in ((case, rows) for case in CASES.items() for rows in BATCHES):
        cases = {name: batch_case(engine, decoding, rows) for name, engine in engines.items()}
        ms = {
            name: took["cpu_p50"] / rows for name, took in paired(cases, rounds, per_round=max(2, 40 // rows)).items()
        }
        found[f"{strategy}, {rows}"] = {**ms, "ratio": round(ms["measured"] / ms["planned"], 3)}
    return found


def lists(artifact: Artifact, split: Split) -> dict[str, Any]:
    """Compares test lists of both kinds of runs, and with those of the widest."""
    engine = Engine(artifact, device="cpu", threads=1)
    found: dict[str, Any] = {}
    widest = evaluated(engine, split, _WIDEST, _WIDEST_SIZES)
    for strategy, decoding in CASES.items():
        planned = evaluated(engine, split, decoding, RunSizes())
        measured = evaluated(engine, split, decoding, artifact.run_sizes)
        found[strategy] = {
            "questions": len(split.test),
            "same_as_planned": same(planned, measured),
            "same_as_widest": same(widest, measured),
            "planned_as_widest": same(widest, planned),
            "planned": {name: planned.figures[name] for name in METRICS},
            "measured": {name: measured.figures[name] for name in METRICS},
        }
    return found


def evaluated(engine: Engine, split: Split, decoding: Decoding, sizes: RunSizes) -> SystemResult:
    """Returns lists and figures of test questions, decoded in runs of these sizes."""
    engine.set_run_sizes(sizes)
    systems = {"gpt4rec": engine_ranker(engine, decoding, k=K)}
    return evaluate(systems, split, exclude_history=not engine.artifact.repeats, samples=1).systems["gpt4rec"]


def same(one: SystemResult, other: SystemResult) -> float:
    """Returns the share of the first ten places that have the same item."""
    return round(float((one.lists[:, :K] == other.lists[:, :K]).mean()), 5)


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact of the run.")],
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Annotated[Path, typer.Option(help="Data set folder of the run.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each case.")] = 20,
    users: Annotated[int, typer.Option(min=2, help="Test questions at most.")] = 2000,
    record: Annotated[bool, typer.Option(help="Write the payload to loadtests/results.")] = True,
) -> None:
    """Measures rows and lists of narrow runs beside those of runs as planned."""
    opened, console = Run.open(run), Console(width=120)
    split = opened.split(opened.dataset(data))
    exported = Artifact.open(artifact)
    found = {
        "items": exported.trie.n_items,
        "sizes": exported.run_sizes.to_json()["sizes"],
        "lists": lists(exported, replace(split, test=split.test.sample(users))),
        "cost": cost(exported, rounds),
    }
    if record:
        command = "python -m loadtests.engine.widths --artifact ARTIFACT --run RUN --data DATA"
        results.save(NAME, {**(results.load(NAME) or {}), opened.data["name"]: found}, command=command)
    show(console, opened.data["name"], found)


def show(console: Console, name: str, found: Mapping[str, Any]) -> None:
    """Prints the figures."""
    times = [[case, *(f"{one[part]:.3f}" for part in ("planned", "measured", "ratio"))] for case, one in costs(found)]
    console.print(
        table(f"{name}: ms of processor time of a row", ["strategy, batch", "planned", "measured", "÷"], times)
    )
    places = ("same_as_planned", "same_as_widest", "planned_as_widest")
    compared = [
        [strategy, *(f"{one[part]:.5f}" for part in places), *(figures(one[part]) for part in ("planned", "measured"))]
        for strategy, one in found["lists"].items()
    ]
    console.print(table("test lists: recall@10 / NDCG@10", ["", *places, "planned", "measured"], compared))


def costs(found: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Returns what was timed, case by case."""
    cost: Mapping[str, Any] = found["cost"]
    return cost.items()


def figures(of: Mapping[str, float]) -> str:
    """Returns both figures of lists as a text."""
    return " / ".join(f"{of[name]:.4f}" for name in METRICS)


if __name__ == "__main__":
    run_command(main)
