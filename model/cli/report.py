"""`gpt4rec report online`: what the lists of a log earned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from model.cli.failures import failures
from service.cli.json_report import AsJson, JsonFile, check_target, to_stdout, write_report

app = typer.Typer(add_completion=False, no_args_is_help=True)

LogUrl = Annotated[
    str, typer.Option("--log", help="Folder of the log, which `gpt4rec loop sink` writes, or a URL that fsspec knows.")
]
From = Annotated[
    datetime | None,
    typer.Option("--from", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Lists shown from then on, UTC."),
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Lists shown before then, UTC."),
]
Window = Annotated[
    float,
    typer.Option(min=0, help="Minutes after a list in which an event that names no list can still belong to it."),
]
ListsMax = Annotated[
    int, typer.Option(min=1, help="Most drawn lists; of a larger log, a part of the subjects is read.")
]
ClicksMax = Annotated[
    int, typer.Option(min=1, help="Most clicks of one subject in a minute; faster traffic is invalid.")
]
Made = Annotated[bool, typer.Option("--made", help="Count invalid traffic as well.")]


@app.callback()
def report() -> None:
    """Report what came of served lists."""


@app.command()
def online(
    log: LogUrl,
    from_: From = None,
    until: Until = None,
    window: Window = 30.0,
    clicks_max: ClicksMax = 60,
    made: Made = False,
    viewed: Annotated[bool, typer.Option("--viewed", help="Count only lists that somebody viewed.")] = False,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Most groups of each kind; the rest is one group.")] = 20,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Click-through, conversion and value per thousand lists, with intervals clustered by subject."""
    check_target(as_json, json_file)
    with failures():
        from model.online.online_report import Options, online_report

        span = log_range(log, from_, until, window, clicks_max)
        found = online_report(span, Options(top=top, made=made, viewed=viewed))
    write_report(found, as_json, json_file)
    if not to_stdout(as_json, json_file):
        _show(found)


def log_range(log: str, from_: datetime | None, until: datetime | None, window: float, clicks_max: int) -> Any:
    """Returns the `LogRange` that the options name.

    Raises:
        LogError: The log cannot be opened.
    """
    from model.online.attribution import Reading
    from model.online.log_folder import LogFolder
    from model.online.made_traffic import Suspicion
    from model.online.partitions import LogRange

    reading = Reading(round(window * 60_000), Suspicion(clicks_max=clicks_max))
    return LogRange(LogFolder(log), _ms(from_), _ms(until), reading)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _show(found: dict[str, Any]) -> None:
    console = Console()
    lists, events = found["lists"], found["events"]
    console.print(
        f"{lists['counted']:,} lists counted of {lists['served']:,} served ({lists['viewed']:,} viewed, "
        f"{lists['made']:,} look made)",
        highlight=False,
    )
    marks = ", ".join(f"{n:,} {mark}" for mark, n in events["by_mark"].items())
    console.print(f"{events['kept']:,} events: {marks}; {events['duplicates']:,} duplicates", highlight=False)
    for dimension, groups in found["groups"].items():
        if groups:
            console.print(_table(dimension, groups))


def _table(dimension: str, groups: list[dict[str, Any]]) -> Table:
    table = Table(title=f"by {dimension}, per thousand lists", title_justify="left")
    for name in (dimension, "lists", "subjects", "clicked %", "clicks", "conversions", "value"):
        table.add_column(name, justify="left" if name == dimension else "right")
    for group in groups:
        rates = [
            _rate(group["click_through"], 100),
            *(_rate(group[name]) for name in ("clicks", "conversions", "value")),
        ]
        table.add_row(group["group"], f"{group['lists']:,}", f"{group['subjects']:,}", *rates)
    return table


def _rate(rate: dict[str, float | None], factor: float = 1.0) -> str:
    value, low, high = (None if end is None else end * factor for end in rate.values())
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g}…{high:.3g})"
