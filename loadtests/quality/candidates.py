"""The gain and the cost of joined candidates.

    python -m loadtests.quality.candidates --run RUN --data DIR --out DIR [--sizes 12000,100000]

- worth: recall@10 and NDCG@10 on test through the served graphs, with and without the joined candidates, by strategy
  and weight of the dense score (the path has the rest of 1), beside the exhaustive dense score in torch, with paired
  tests of the difference
- cost: a decode with and without them, in turns, on the run's catalogue and on synthetic ones
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from export.artifact_writer import Parts, write
from export.from_run import parts_of
from loadtests.common import results
from loadtests.common.report import table
from loadtests.engine.decoder_cases import STATES, jobs
from loadtests.engine.paired_timing import Timed, paired
from loadtests.engine.synthetic_artifact import write_synthetic
from loadtests.quality.network_alone import rank_by_network
from model.data.split import Holdout, Split
from model.evaluation.baselines import fit_baselines
from model.evaluation.bootstrap import SAMPLES
from model.evaluation.evaluate import Histories, Ranker, evaluate
from model.evaluation.rankers import engine_ranker, network_ranker
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command
from service.engine.decoding import Decoding, Strategy
from service.engine.engine import Engine

NAME = "quality_candidates"
# Strategy and weight of the dense score; the first one's figures are the rows.
CASES: tuple[tuple[Strategy, float], ...] = (
    ("beam", 1.0), ("beam", 0.9), ("beam", 0.75), ("beam", 0.5), ("beam", 0.0), ("greedy", 1.0), ("greedy", 0.9),
)  # fmt: skip
METRICS = ("recall@10", "ndcg@10")
WIDTHS = (16, 64)
K = 10
# Of what the exhaustive score finds: equal scores and rounding may trade a place.
REACHED = 0.999

Say = Callable[[str], None]


def thinned(split: Split, every: int) -> Split:
    """Keeps every n-th test user."""
    rows = np.arange(0, len(split.test), every)
    t = split.test
    return replace(split, test=Holdout(t.users[rows], t.history_end[rows], t.target[rows]))


def served(engine: Engine, decoding: Decoding, *, join: bool) -> Ranker:
    """Returns lists of the engine, with or without the joined candidates."""
    ask = engine_ranker(engine, decoding, k=K)

    def rank(histories: Histories) -> Any:
        engine.set_joined_candidates(join)
        return ask(histories)

    return rank


def worth(run: Run, parts: Parts, split: Split, folder: Path, say: Say) -> dict[str, Any]:
    """Measures every case, with joined candidates (`joined`) and without (`alone`)."""
    write(replace(parts, dense=True), folder, "float32")
    engine = Engine(Artifact.open(folder), device="cpu", threads=1)
    say("the exhaustive dense score")
    exhaustive = evaluate({"exhaustive": network_ranker(run.model(), parts.vocabulary)}, split, samples=1)
    rows = []
    for strategy, dense in CASES:
        say(f"{strategy}, weight of the dense score {dense}")
        decoding = Decoding(strategy)
        rank_by_network(engine, 1 - dense, dense)
        systems = {"joined": served(engine, decoding, join=True), "alone": served(engine, decoding, join=False)}
        found = evaluate(systems, split, samples=SAMPLES)
        rows.append(
            {
                "strategy": strategy,
                "width": decoding.width(K),
                "blend": dense,
                **{name: {m: found.systems[name].figures[m] for m in METRICS} for name in systems},
                "lead": [c.to_json() for c in found.comparisons if c.metric in METRICS],
            }
        )
    return {
        "items": len(parts.catalogue),
        "users": exhaustive.users,
        "exhaustive": {m: exhaustive.systems["exhaustive"].figures[m] for m in METRICS},
        "lists": rows,
    }


def decoding_case(engine: Engine, width: int) -> Timed:
    """Returns a case that decodes one list per run from random hidden states."""
    asked = [replace(job, request=replace(job.request, width=width)) for job in jobs(engine)]

    def one(number: int) -> object:
        listed = engine.decode([asked[number % STATES]])[0]
        if isinstance(listed, Exception):
            raise listed
        return listed

    return one


def cost(alone: Path, joined: Path, rounds: int) -> dict[str, Any]:
    """Measures milliseconds of a decode by width, and the ratio of processor time with joined candidates ÷ without."""
    engines = {"alone": alone, "joined": joined}
    opened = {name: Engine.open(folder, device="cpu", threads=1) for name, folder in engines.items()}
    found: dict[str, Any] = {"items": opened["alone"].artifact.trie.n_items}
    for width in WIDTHS:
        ms = paired({name: decoding_case(engine, width) for name, engine in opened.items()}, rounds, per_round=20)
        found[str(width)] = {**ms, "ratio": round(ms["joined"]["cpu_p50"] / ms["alone"]["cpu_p50"], 3)}
    return found


def synthetic(root: Path, n_items: int, *, dense: bool) -> Path:
    """Returns a synthetic artefact of this size, made if it is missing."""
    folder = root / ("joined" if dense else "alone")
    made = sorted(folder.glob(f"synthetic-{n_items}-*"))
    return made[0] if made else write_synthetic(folder, n_items, dense=dense)


def main(
    run: Annotated[Path, typer.Option(help="Folder of a trained run.")],
    data: Annotated[Path, typer.Option(help="Data set folder of the run.")],
    out: Annotated[Path, typer.Option(help="Folder for the artefacts.")],
    every: Annotated[int, typer.Option(min=1, help="Use every n-th test user only.")] = 1,
    sizes: Annotated[
        str, typer.Option(help="Sizes of synthetic catalogues to time as well, separated by commas.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of 20 lists of each case.")] = 10,
    record: Annotated[bool, typer.Option(help="Write the rows and the payload to loadtests/results.")] = True,
) -> None:
    """Measures lists and decode times with and without joined candidates."""
    console = Console(width=120)
    opened = Run.open(run)
    dataset = opened.dataset(data)
    split = opened.split(dataset)
    parts = parts_of(opened, dataset, split, fit_baselines(split))
    name = opened.data["name"]
    folders = {True: out / f"{name}-joined", False: out / f"{name}-alone"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    write(replace(parts, dense=False), folders[False], "float32")
    quality = worth(opened, parts, thinned(split, every), folders[True], console.print)
    times = {name: cost(folders[False], folders[True], rounds)}
    for n in [int(size) for size in sizes.split(",") if size]:
        console.print(f"decode times of a catalogue of {n:,} items")
        pair = [synthetic(out, n, dense=dense) for dense in (False, True)]
        times[f"synthetic, {n:,} items"] = cost(pair[0], pair[1], rounds)
    command = f"python -m loadtests.quality.candidates --run RUN --data DIR --every {every} --sizes {sizes}"
    if record:
        keep(name, quality, times, command)
    show(console, name, quality, times)


def keep(name: str, quality: Mapping[str, Any], times: Mapping[str, Any], command: str) -> None:
    """Records the figures beside those of other data sets, and the rows of the first case."""
    before = results.load(NAME) or {}
    payload = {
        "worth": {**before.get("worth", {}), name: quality},
        "cost": {**before.get("cost", {}), **times},
    }
    results.save(NAME, payload, command=command)
    best = quality["lists"][0]
    for metric in METRICS:
        reached = best["joined"][metric] / max(quality["exhaustive"][metric], 1e-9)
        row = results.row(
            f"{name}: {metric}, served list / exhaustive dense score", reached, "ratio", command, at_least=REACHED
        )
        results.record(results.QUALITY, row)
    for label, found in times.items():
        ratio = found[str(WIDTHS[-1])]["ratio"]
        results.record(
            results.QUALITY, results.row(f"{label}: decode with dense candidates / without", ratio, "ratio", command)
        )


def show(console: Console, name: str, quality: Mapping[str, Any], times: Mapping[str, Any]) -> None:
    """Prints the figures."""
    dense = quality["exhaustive"]
    console.print(f"{name}, {quality['users']} users: exhaustive {dense['recall@10']:.4f} / {dense['ndcg@10']:.4f}")
    rows = [
        [
            f"{one['strategy']}, W {one['width']}, dense weight {one['blend']}",
            *(f"{one[part]['recall@10']:.4f} / {one[part]['ndcg@10']:.4f}" for part in ("alone", "joined")),
        ]
        for one in quality["lists"]
    ]
    console.print(table("recall@10 / NDCG@10", ["", "beam alone", "dense joined"], rows))
    timed = [
        [f"{label}, W {width}", found[width]["alone"]["cpu_p50"], found[width]["joined"]["cpu_p50"]]
        for label, found in times.items()
        for width in map(str, WIDTHS)
    ]
    console.print(table("decode, ms of processor time", ["", "beam alone", "dense joined"], timed))


if __name__ == "__main__":
    run_command(main)
