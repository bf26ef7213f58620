"""Quantiles of latencies, and tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from service.cli.json_report import to_stdout, write_report

QUANTILES = (("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("max", 100.0))


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Returns quantiles by name, in the unit of the values; None without values.

    They are observed values, not interpolated between two.
    """
    if not len(values):
        return {name: None for name, _ in QUANTILES}
    array = np.asarray(values, np.float64)
    return {name: round(float(np.percentile(array, q, method="higher")), 3) for name, q in QUANTILES}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Returns a table; the first column is text, the others are figures."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        made.add_row(
            *("–" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row)
        )
    return made


def publish(tables: Sequence[Table], report: dict[str, Any], as_json: bool, json_file: Path | None) -> None:
    """Prints the tables, unless the report is printed as JSON; writes it as `--json` asks for."""
    if not to_stdout(as_json, json_file):
        console = Console(width=max(100, Console().width))
        for made in tables:
            console.print(made)
    write_report(report, as_json, json_file)
