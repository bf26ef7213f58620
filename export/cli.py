"""`gpt4rec export`: turns a training run into an artefact that has passed the parity gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.cli.steps import steps
from service.cli.json_report import AsJson
from service.cli.messages import complain

app = typer.Typer(add_completion=False)


@app.command(name="export")
def export_command(
    out: Annotated[Path, typer.Option(help="Folder of artefacts; the new one is published there under its version.")],
    run: Annotated[Path | None, typer.Option(help="Run folder written by `gpt4rec train`.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Instead of a run, fitted on --data: item_cf, popularity, repeat, another signal of the ranker "
            "(transitions, walk, content, texts, trend), or fused: all but texts, weighted on validation."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, float16 (for GPUs) or int8 (small weights, integer kernels; CPUs only).")
    ] = "float32",
    data: Annotated[Path | None, typer.Option(help="Data set, if it has moved since training.")] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Let a service that is started on --out serve this artefact from now on.")
    ] = False,
    width: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=128,
            help="Nodes that a run keeps at every level, at most, instead of as few as make the same lists on "
            "validation; 128: as many as policies ask for.",
        ),
    ] = None,
    candidates: Annotated[
        str,
        typer.Option(
            help="What joins the beam's candidates: all (the whole catalogue is scored), cells (its best cells are), "
            "signals (items with signals alone), or measured: all up to 100,000 items, above what validation says."
        ),
    ] = "measured",
    sign: Annotated[
        Path | None, typer.Option(help="Private key that signs the artefact, made by `gpt4rec sign key`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained model's graphs, catalogue and signals, learn their weights, and check the graphs."""
    from rich.console import Console

    from service.artifact.manifest import latest_of

    if dtype not in ("float32", "float16", "int8"):
        raise typer.BadParameter(f"{dtype!r}: choose float32, float16 or int8", param_hint="--dtype")
    if candidates not in ("measured", "all", "cells", "signals"):
        raise typer.BadParameter(f"{candidates!r}: choose measured, all, cells or signals", param_hint="--candidates")
    console = Console(stderr=True)
    try:
        from export.from_baseline import NAMES, export_baseline
        from export.from_run import ExportError, export_run
        from export.signing import signer
        from service.artifact.signature import KeyFileError
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed: pip install 'gpt4rec[train,cpu]'")
        raise typer.Exit(1) from error
    if (run is None) == (baseline is None) or (baseline is not None and (data is None or baseline not in NAMES)):
        raise typer.BadParameter(f"give --run, or --data and --baseline with one of {', '.join(NAMES)}")
    try:
        signs = signer(sign)
        with steps(console, "exporting") as say:
            if run is not None:
                folder, report = export_run(
                    run, out, dtype, data, latest=latest, sign=signs, width=width, candidates=candidates, say=say,  # type: ignore[arg-type]
                )  # fmt: skip
            else:
                notes: list[str] = []
                note = notes.append
                folder = export_baseline(baseline, data, out, latest=latest, sign=signs, say=say, note=note)  # type: ignore[arg-type]
                report = {"notes": notes}
    except (ExportError, KeyFileError) as error:
        complain(error)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps({"artifact": str(folder), "latest": latest_of(out) or None, **report}))
        return
    console.print(f"published {folder}", highlight=False)
    for sentence in report["notes"]:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if "parity" in report:  # a scorer without a network has no graphs to compare
        console.print(f"parity: {report['parity']}", highlight=False)
    if (served := latest_of(out)) != folder.name:
        console.print(
            f"latest is still {served}: serve the new one with `gpt4rec ops models activate {folder.name}`, or export "
            "with --latest",
            highlight=False,
            soft_wrap=True,
        )
