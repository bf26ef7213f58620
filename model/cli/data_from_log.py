"""`gpt4rec data from-log`, and a log as the data of `gpt4rec train`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model.cli.failures import failures
from model.cli.report import ClicksMax, LogUrl, Made, log_range
from model.cli.steps import steps
from service.cli.json_report import AsJson

# Where `train` keeps what it read of a log, below the folder of its run.
LOG = "log"

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_WINDOW_MINUTES, _CLICKS_MAX = 30.0, 60


def from_log_command(
    log: LogUrl,
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Data set that the events are added to; it stays as it is.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DATA", help="Folder of the data set to write; without it, count.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of items, for what is new or has changed.")
    ] = None,
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=_TIMES, help="Events received from then on, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", formats=_TIMES, help="Events received before then, UTC.")
    ] = None,
    clicks_max: ClicksMax = _CLICKS_MAX,
    made: Made = False,
    as_json: AsJson = False,
) -> None:
    """Add what users did, as the log of a service has it, to the data set that a model was trained on."""
    with failures(), steps(Console(stderr=True), "reading the data set") as say:
        from model.data.dataset import Dataset
        from model.data.dataset_folder import check_replaceable
        from model.data.together import with_items
        from model.online.training_data import extended

        if out is not None:
            check_replaceable(out.absolute())
        base = None if data is None else Dataset.load(data)
        say("reading the log")
        found = extended(base, log_range(log, from_, until, _WINDOW_MINUTES, clicks_max), made=made)
        dataset = found.dataset if items is None else with_items(found.dataset, items)
        if out is not None:
            say(f"writing {out}")
            dataset.save(out)
    if as_json:
        where = None if out is None else str(out)
        typer.echo(json.dumps({"path": where, "fingerprint": dataset.fingerprint, **found.counts()}))
    else:
        typer.echo(in_words(found.counts()))


def data_of_log(
    place: str, init: Path | None, old: Path | None, run: Path, console: Console, *, resume: bool
) -> Path | None:
    """Returns the data set of what a log has behind older data, written to the folder of a run.

    Args:
        place: A log; None is returned for anything else.
        init: Run that the training goes on from, whose data are the older ones unless others are given.
        old: Data set that the events are added to.
        run: Folder of the run.
        console: Told what the log brought.
        resume: Whether what was read of the log before is taken, although it may have more by now.

    Raises:
        DataError: The log or the older data cannot be read.
        RunError: The run cannot be read.
        ConfigError: There are older data to add to, but neither a log nor a run.
    """
    from model.data.dataset import Dataset
    from model.errors import ConfigError
    from model.online.training_data import extended, is_log
    from model.training.run_folder import Run, has_checkpoint

    if not is_log(place):
        if old is not None and init is None:
            raise ConfigError("--old needs --init, or a log as --data")
        return None
    data = run / LOG
    # The data of a run that is there already are left alone, also where the training is about to be refused.
    if data.exists() and (resume or has_checkpoint(run)):
        return data
    if init is not None and old is None:
        old = Run.open(init).data_path()
    base = None if old is None else Dataset.load(old)
    found = extended(base, log_range(place, None, None, _WINDOW_MINUTES, _CLICKS_MAX))
    found.dataset.save(data)
    console.print(in_words(found.counts()), highlight=False, markup=False, soft_wrap=True)
    return data


def in_words(counts: dict[str, int]) -> str:
    """Returns what a log brought, as a sentence."""
    return (
        "{new:,} new events, {new_users:,} new users, {new_items:,} new items; left out: {made:,} events that look "
        "made, {erased:,} older ones of erased users, {signals:,} that are no history, {nobody:,} of nobody"
    ).format_map(counts)
