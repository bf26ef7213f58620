"""`gpt4rec train` and `gpt4rec evaluate`."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from model.cli.failures import failures
from model.cli.steps import steps
from model.cli.training_progress import fit
from service.cli.json_report import AsJson, JsonFile, check_target, write_report
from service.common.atomic_files import write_aside

if TYPE_CHECKING:
    from model.training.trainer import Trainer

_MINUTES_HELP = (
    "Time for everything, in minutes: preparing, training, validating and evaluating, over all resumed parts. What "
    "cannot be cut is said."
)

REPLAY = 0.05

train_app = typer.Typer(add_completion=False)
evaluate_app = typer.Typer(add_completion=False)


@train_app.command(name="train")
def train_command(
    data: Annotated[
        str,
        typer.Option(help="Data set folder, written by `gpt4rec data`, or the log that `gpt4rec loop sink` writes."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to create, or to resume.")],
    config: Annotated[Path | None, typer.Option(help="YAML or JSON file with settings; see docs/training.md.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of docs/training.md, key=value; can be repeated.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help=_MINUTES_HELP)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last finished epoch.")] = False,
    init: Annotated[
        Path | None, typer.Option(help="Finished run to go on from, with the new events, users and items of --data.")
    ] = None,
    old: Annotated[
        Path | None,
        typer.Option(help="Data set that --data adds to, where it holds only new events. With --init or a log."),
    ] = None,
    keep_encoder: Annotated[
        bool, typer.Option("--keep-encoder", help="With --init: leave the encoder, so that every user's state stays.")
    ] = False,
    ewc: Annotated[
        str, typer.Option(help="With --init: how strongly old weights are held; 0: not at all, auto: by validation.")
    ] = "auto",
    replay: Annotated[
        float, typer.Option(help="With --init: share of old sequences that each epoch goes over again.")
    ] = REPLAY,
    as_json: AsJson = False,
) -> None:
    """Train GPT4Rec and compare it with item-CF and popularity."""
    if init is None and (keep_encoder or ewc != "auto" or replay != REPLAY):
        raise typer.BadParameter("--keep-encoder, --ewc and --replay need --init")
    began = time.monotonic()
    with failures(), contextlib.ExitStack() as stack:
        from model.cli.data_from_log import data_of_log
        from model.cli.increment import Asked, describe, open_increment
        from model.cli.processes import is_first, joined_by_torchrun, open_run, prepared
        from model.data.long_histories import ITEM_CF_EVENTS, note_on_long
        from model.training.config import TrainConfig
        from model.training.increment.trainer import memory_of
        from model.training.run_folder import saved_config
        from model.training.time_limit import TimeLimit

        limit = TimeLimit(max_minutes, used_s=time.monotonic() - began)
        processes = joined_by_torchrun(stack, data, init)
        console = Console(stderr=True, quiet=not is_first(processes))
        with steps(console, "reading the data"):
            logged = data_of_log(data, init, old, out, console, resume=resume)
        place = logged or Path(data)
        if init is not None:
            asked = Asked(init, old if logged is None else None, keep_encoder, ewc, replay)
            with steps(console, "reading the run and the data") as say:
                increment = open_increment(asked, place, out, config, assignments or [], seed, resume=resume, say=say)
            trainer: Trainer = increment
            dataset = increment.start.data.dataset
            describe(increment, console)
        else:
            settings = TrainConfig.build(config, assignments or [], seed=seed)
            if resume and config is None and not assignments and seed is None and (out / "config.json").exists():
                settings = saved_config(out)
            with steps(console, "preparing: item tokens, network, batches"):
                trainer, dataset = open_run(stack, processes, place, out, settings, resume=resume)
        console.print(_headline(trainer), highlight=False)
        if long := note_on_long(trainer.split.train, ITEM_CF_EVENTS, "item-CF counts"):
            console.print(long, highlight=False, markup=False, soft_wrap=True)
        limit.resume(trainer.progress.seconds)
        closing = prepared(trainer, dataset, limit, console, tune=init is None)
        fit(trainer, console, limit)
        if closing is None:
            return
        if not trainer.config.shard_items:
            with steps(console, "noting what increments need to know"):
                memory_of(trainer, dataset, place).save(out)
        evaluation = closing.of(trainer, console)
        write_aside(out / "metrics.json", json.dumps(evaluation.to_json(), indent=1).encode())
    if as_json:
        typer.echo(json.dumps({"run": str(out), **evaluation.to_json()}))


@evaluate_app.command(name="evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Option(help="Data set folder, written by `gpt4rec data`.")],
    artifact: Annotated[Path | None, typer.Option(help="Artefact: evaluate the exported graphs.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder: evaluate the network in torch.")] = None,
    split: Annotated[str, typer.Option(help="Part to evaluate: test or valid.")] = "test",
    strategy: Annotated[str, typer.Option(help="Decoding: beam, greedy, top_p or temperature.")] = "beam",
    signals: Annotated[
        bool, typer.Option("--signals", help="Also list by each signal of the artefact alone (with --artifact).")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that make the lists; the figures are those of one.")
    ] = 1,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Rank the whole catalogue for every held-out user, and compare with item-CF and popularity on the same users."""
    check_target(as_json, json_file)
    if (artifact is None) == (run is None):
        raise typer.BadParameter("give exactly one of --artifact and --run")
    if signals and artifact is None:
        raise typer.BadParameter("a run has no signals yet: give --artifact", param_hint="--signals")
    if split not in ("test", "valid"):
        raise typer.BadParameter(f"{split!r}: choose test or valid", param_hint="--split")
    if strategy not in ("beam", "greedy", "top_p", "temperature"):
        raise typer.BadParameter(f"{strategy!r}: choose beam, greedy, top_p or temperature", param_hint="--strategy")
    console = Console(stderr=True)
    with failures():
        if artifact is not None:
            evaluation = evaluate_artifact(
                artifact, data, split, strategy, console, signals=signals, processes=processes
            )
        else:
            assert run is not None  # noqa: S101 - one of the two, checked above
            evaluation = evaluate_run(run, data, split, console, processes)
        write_report(evaluation.to_json(), as_json, json_file)


def _headline(trainer: Trainer) -> str:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return (
        f"{parameters:,} parameters, codes {trainer.tokenizer.code_sizes}, window {trainer.network.window}, "
        f"{len(trainer.plan.epoch(0))} batches an epoch, {trainer.plan.padding_share():.1%} padding, "
        f"on {trainer.device.type}"
    )


def evaluate_run(folder: Path, data: Path, part: Any, console: Console, processes: int = 1) -> Any:
    """Evaluates the network of a run in torch, ranking the whole catalogue by its dense score.

    Args:
        folder: The run folder.
        data: The data set that the run was trained on.
        part: "test" or "valid".
        console: Where progress and tables are printed.
        processes: How many processes make the lists.

    Raises:
        RunError: The run cannot be read, or the data set is not the one it was trained on.
        DataError: The data set cannot be read.
    """
    from model.cli.closing_evaluation import side_by_side
    from model.evaluation.baselines import fit_baselines
    from model.evaluation.sharded import RunSource
    from model.training.run_folder import Run

    run = Run.open(folder)
    split = run.split(run.dataset(data))
    with steps(console, "tuning item-CF on validation"):
        baselines = fit_baselines(split, exclude_history=not run.config.repeats)
    source = RunSource(folder, data, baselines.item_cf, baselines.popularity)
    return side_by_side(source.open(), part, console, source=source, processes=processes)


def evaluate_artifact(
    folder: Path,
    data: Path,
    part: Any,
    strategy: Any,
    console: Console,
    *,
    signals: bool = False,
    processes: int = 1,
) -> Any:
    """Evaluates the exported graphs with constrained decoding, and the fallback scorers of the artefact.

    Args:
        folder: The artefact.
        data: The data set that the model was trained on.
        part: "test" or "valid".
        strategy: "beam", "greedy", "top_p" or "temperature".
        console: Where progress and tables are printed.
        signals: Whether each signal of the artefact is evaluated as well.
        processes: How many processes make the lists.

    Raises:
        RunError: The data set has another catalogue than the artefact.
        DataError: The data set cannot be read.
        ArtifactFileError: The artefact cannot be read.
    """
    from model.cli.closing_evaluation import side_by_side
    from model.evaluation.sharded import ArtifactSource

    source = ArtifactSource(folder, data, strategy, signals)
    return side_by_side(source.open(), part, console, source=source, processes=processes)
