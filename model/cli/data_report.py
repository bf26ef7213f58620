"""What an import prints: the description of the data set that it wrote, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model.data.dataset import Dataset


def told_of(dataset: Dataset) -> dict[str, Any]:
    """Returns what meta.json tells of a data set."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "has_time": dataset.has_time,
        "category_kind": dataset.category_kind,
        "report": dataset.report,
    }


def show(told: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Prints the report of an import.

    Args:
        told: What meta.json tells of the data set.
        out: Its folder.
        as_json: Whether to print one line of JSON.
    """
    if as_json:
        names = ("name", "source", "path", "fingerprint", "has_time", "category_kind", "report")
        whole = {**told, "path": str(out)}
        typer.echo(json.dumps({name: whole[name] for name in names}))
    else:
        Console().print(_table(told, out))


def _table(told: Mapping[str, Any], out: Path) -> Table:
    report = told["report"]
    per_user = report["events_per_user"]
    table = Table(title=f"{told['name']} → {out}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("users", f"{report['users']:,}")
    table.add_row("items", f"{report['items']:,} ({report['items_with_events']:,} with events)")
    kinds = ", ".join(f"{name} {count:,}" for name, count in report["event_types"].items())
    table.add_row("events", f"{report['events']:,} ({kinds})")
    table.add_row("per user", f"{per_user['min']} … {per_user['median']:g} (median) … {per_user['max']}")
    table.add_row("time", f"{report['first_event']} … {report['last_event']}" if told["has_time"] else "none")
    table.add_row("density", f"{report['density']:.4%}")
    for reason, count in report["dropped"].items():
        table.add_row("dropped", f"{count:,}: {reason}", style="yellow")
    for note in report["notes"]:
        table.add_row("note", note, style="dim")
    return table
