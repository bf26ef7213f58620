"""`gpt4rec gate`: compares a candidate with the champion, and refuses it if it is worse."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy.loop.gate.latency import latency, megabytes
from deploy.loop.gate.limits import Figures, Limits, faults
from deploy.loop.gate.lists import Contender
from deploy.loop.gate.measures import calibration, cold_start, overlap, quality
from deploy.loop.gate.questions import ask
from deploy.loop.gate.report import Report
from model.data.dataset import Dataset, sequences
from model.data.errors import DataError
from model.errors import RunError
from service.artifact.manifest import ArtifactFileError
from service.cli.json_report import AsJson, JsonFile, check_target, write_report
from service.cli.messages import complain
from service.common.atomic_files import require_writable, write_aside
from service.common.errors import ServiceError

app = typer.Typer(add_completion=False)
_DEFAULT = Limits()


def compare(
    candidate: Path,
    champion: Path,
    data: Path,
    limits: Limits,
    *,
    since_ms: int | None = None,
    requests: Path | None = None,
    users: int = 2000,
    runs: int = 200,
) -> Report:
    """Compares two artefacts.

    Args:
        candidate: Folder of the new artefact.
        champion: Folder of the artefact in service.
        data: Data set with the newest events.
        limits: What the candidate may lose.
        since_ms: Begin of the hold-out; None: where the candidate's data ends, or its own test part begins.
        requests: File of recorded requests.
        users: Most questions of each kind.
        runs: Timed lists of each.

    Raises:
        RunError: Nothing is held out, or the candidate was trained on it.
        DataError: The data cannot be read.
        ServiceError: An artefact cannot be used.
    """
    ours, theirs = Contender(candidate), Contender(champion)
    dataset = Dataset.load(data)
    log = sequences(dataset)
    asked = ask(log, dataset, ours.artifact, theirs.artifact, users, since_ms=since_ms, requests=requests)
    held = [one.lists(asked.held_out) for one in (ours, theirs)]
    fresh = [one.lists(asked.new_users) for one in (ours, theirs)]
    recorded = held if requests is None else [one.lists(asked.requests) for one in (ours, theirs)]
    found = Figures(
        questions=len(asked.held_out),
        quality=quality(asked.held_out, held[0], held[1]),
        calibration=(calibration(asked.held_out, held[0]), calibration(asked.held_out, held[1])),
        latency=latency(ours, theirs, asked.requests or asked.held_out, runs),
        size=(megabytes(ours), megabytes(theirs)),
        overlap=overlap(recorded[0], recorded[1]),
        cold=cold_start(ours, theirs, (asked.held_out, held[0]), (asked.new_users, fresh[0], fresh[1])),
    )
    notes = list(asked.notes)
    if ours.artifact.model_version == theirs.artifact.model_version:
        notes.append("candidate and champion are the same model")
    if ours.artifact.encoder_version.name == theirs.artifact.encoder_version.name:
        notes.append("both have the same encoder: states stay")
    return Report(
        ours.artifact.model_version, theirs.artifact.model_version, asked.kind, found, limits, faults(found, limits),
        notes,
    )  # fmt: skip


@app.command(name="gate")
def gate_command(
    candidate: Annotated[Path, typer.Option(help="Artefact that may replace the champion.")],
    champion: Annotated[Path, typer.Option(help="Artefact in service.")],
    data: Annotated[Path, typer.Option(help="Data set with the newest events.")],
    since: Annotated[
        datetime | None,
        typer.Option(help="Begin of the hold-out (UTC); by default the candidate's test part, or the end of its data."),
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(help="Recorded bodies of /recommend, one a line; by default the held-out histories.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Most questions of each kind.")] = 2000,
    runs: Annotated[int, typer.Option(min=2, help="Timed lists of each.")] = 200,
    quality_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the champion's quality that may be lost.")
    ] = _DEFAULT.quality,
    sure: Annotated[
        bool, typer.Option("--sure", help="Refuse where a larger loss cannot be ruled out, too.")
    ] = _DEFAULT.sure,
    calibration_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Growth of the calibration error.")
    ] = _DEFAULT.calibration,
    latency_times: Annotated[
        float, typer.Option(min=1, help="Median time of a list, times the champion's.")
    ] = _DEFAULT.latency,
    size_times: Annotated[float, typer.Option(min=0, help="Size, times the champion's.")] = _DEFAULT.size,
    overlap_least: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the champion's first ten that must stay.")
    ] = _DEFAULT.overlap,
    questions_least: Annotated[
        int, typer.Option(min=0, help="Fewest held-out questions for a verdict.")
    ] = _DEFAULT.questions,
    report: Annotated[Path | None, typer.Option(help="File for the report as Markdown.")] = None,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Compare a candidate with the champion on the newest events. Exit code 1 if it is refused."""
    check_target(as_json, json_file)
    if report is not None:
        require_writable(report)
    limits = Limits(quality_loss, sure, calibration_loss, latency_times, size_times, overlap_least, questions_least)
    since_ms = None if since is None else round(since.replace(tzinfo=since.tzinfo or UTC).timestamp() * 1000)
    try:
        found = compare(
            candidate, champion, data, limits, since_ms=since_ms, requests=requests, users=users, runs=runs
        )  # fmt: skip
    except (RunError, DataError, ArtifactFileError, ServiceError) as error:
        complain(error)
        raise typer.Exit(1) from error
    typer.echo(found.markdown(), err=True)
    if report is not None:
        write_aside(report, found.markdown().encode())
    write_report(found.to_json(), as_json, json_file)
    raise typer.Exit(0 if found.passed else 1)
