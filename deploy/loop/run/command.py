"""`gpt4rec loop run` and `gpt4rec loop status`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from service.cli.json_report import AsJson
from service.cli.messages import complain
from service.common import logs

Work = Annotated[Path | None, typer.Option(help="Folder of the cycles and their journal (GPT4REC_LOOP_WORK).")]
# Another loop has the work folder.
LOCKED = 4


def run(
    work: Work = None,
    log: Annotated[
        str | None, typer.Option(help="Folder of the log, or a URL that fsspec knows (GPT4REC_LOOP_LOG).")
    ] = None,
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of artefacts that the service serves one of (GPT4REC_LOOP_ARTIFACTS).")
    ] = None,
    first: Annotated[
        Path | None,
        typer.Option("--run", help="Run of the model in service, for the first cycle (GPT4REC_LOOP_RUN)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set of that run, if it has moved (GPT4REC_LOOP_DATA).")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do one cycle, or finish the open one, and end.")] = False,
    full: Annotated[bool, typer.Option("--full", help="With --once: train everything anew.")] = False,
    increment: Annotated[bool, typer.Option("--increment", help="With --once: go on from the run.")] = False,
    every: Annotated[float | None, typer.Option(help="Minutes from one increment to the next (60).")] = None,
    full_at: Annotated[str | None, typer.Option(help="Time of the daily full training, UTC, or never (03:00).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    url: Annotated[str, typer.Option("--url", envvar="GPT4REC_OPS_URL", help="URL of the service.")] = (
        "http://127.0.0.1:8000"
    ),
    token: Annotated[str, typer.Option("--token", envvar="GPT4REC_OPS_TOKEN", help="An ops token.")] = "",
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics and /healthz; 0 chooses a free one (8012).")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error (info).")] = None,
) -> None:
    """Sink, train, export, gate, canary, promote: on a schedule until a signal, or once.

    Whatever happens, the model in service stays until a candidate has passed everything. A start goes on where the last
    one was ended. Exit codes of --once: 0 promoted, or too few new events; 1 a step failed; 3 the candidate was refused
    or went back; 4 another loop has the work folder; 5 stopped before the end. Every other setting is an environment
    variable GPT4REC_LOOP_… (docs/reference.md).
    """
    from service.settings.loader import load, load_loop

    if full and increment:
        raise typer.BadParameter("choose one of --full and --increment")
    if (full or increment) and not (once or dry_run):
        raise typer.BadParameter("--full and --increment need --once: the schedule decides otherwise")
    logs.configure()  # until its level is known
    settings = load(log_level=log_level)
    own = load_loop(
        loop_work=_text(work), loop_log=log, loop_artifacts=_text(artifacts), loop_run=_text(first),
        loop_data=_text(data), loop_increment_minutes=every, loop_full_at=full_at, loop_metrics_port=metrics_port,
    )  # fmt: skip
    # Imported here, so that a misspelt setting fails at once.
    from deploy.loop.run import process
    from deploy.loop.run.locks import LockedError
    from deploy.loop.run.service import token_of
    from model.errors import RunError

    logs.configure(settings.log_level)
    kind = process.kind_of(full=full, increment=increment)
    try:
        token = token_of(token, own.loop_token_file)
        if dry_run:
            typer.echo("\n".join(process.dry_run(own, url, token, kind)))
            return
        code = process.run(settings, own, url, token, _say, once=once, kind=kind)
    except LockedError as error:
        complain(error)
        raise typer.Exit(LOCKED) from error
    except RunError as error:
        complain(error)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


def status(
    work: Work = None,
    most: Annotated[int, typer.Option(min=1, help="Most cycles to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show what the loop does, which cycle is due, and how the newest ones ended."""
    from deploy.loop.run.journal import Journal
    from deploy.loop.run.schedule import Schedule
    from deploy.loop.run.telling import status as told
    from deploy.loop.run.telling import status_lines
    from model.errors import RunError
    from service.settings.loader import load_work

    own = load_work(loop_work=_text(work))
    try:
        schedule = Schedule.of(own.loop_increment_minutes, own.loop_full_at)
        found = told(Journal(Path(own.loop_work)), schedule, time.time(), most=most)
    except RunError as error:
        complain(error)
        raise typer.Exit(1) from error
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(status_lines(found)))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _say(line: str) -> None:
    typer.echo(line, err=True)
