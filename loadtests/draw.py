"""`python -m loadtests.draw`: docs/performance.md and its plots, from loadtests/results/*.json.

The prose is in `loadtests/performance.md`; `{{name}}` stands for what is drawn from the file of that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests import draw_plots, draw_tables, results

TEMPLATE = Path(__file__).resolve().parent / "performance.md"
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
PLOTS = DOCUMENT.with_suffix("")
# Which plots stand under which section.
SHOWN = {
    "peers": ("peers",),
    "scale": ("scale",),
    "curves": ("history", "k", "beam", "concurrency", "batch"),
    "soak": ("soak", "memory"),
}
TITLES = {
    "peers": "Requests a second of each system",
    "scale": "Time over the size of the catalogue",
    "history": "Latency over the length of the history",
    "k": "Latency over k",
    "beam": "Latency over the beam width",
    "concurrency": "Latency over requests at once",
    "batch": "Time a row over the batch",
    "soak": "Latency by percentile",
    "memory": "Resident memory over time",
}


def read(folder: Path = results.RESULTS) -> dict[str, Any]:
    """Every file that a section is drawn from; None where it is not there."""
    return {name: results.load(name, folder) for name in draw_tables.SECTIONS}


def render(folder: Path = results.RESULTS, template: Path = TEMPLATE) -> str:
    """The document. Raises ValueError where the template names something that cannot be drawn."""
    files, rows = read(folder), results.read_rows(folder / results.ENGINE.name)
    parts = {"criteria": draw_tables.criteria(rows), "machine": draw_tables.machine(files, rows)}
    plots = set(draw_plots.wanted(files))
    for name, section in draw_tables.SECTIONS.items():
        found = files[name]
        images = [f"![{TITLES[plot]}]({PLOTS.name}/{plot}.svg)" for plot in SHOWN.get(name, ()) if plot in plots]
        parts[name] = "\n\n".join([section(found), *images]) if found else draw_tables.NOT_YET

    def fill(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise ValueError(f"{template}: there is nothing to draw for {match[0]}")
        return parts[match[1]]

    return re.sub(r"\{\{(\w+)\}\}", fill, template.read_text(encoding="utf-8"))


def missing(files: Mapping[str, Any]) -> list[str]:
    return [name for name, found in files.items() if found is None]


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where the document is out of date.")
    ] = False,
    plots: Annotated[bool, typer.Option(help="Also draw the plots, which takes matplotlib.")] = True,
) -> None:
    """Draws docs/performance.md and its plots."""
    text = render()
    if check:
        if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != text:
            typer.echo(f"{DOCUMENT} is out of date: python -m loadtests.draw", err=True)
            raise typer.Exit(1)
        return
    DOCUMENT.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {DOCUMENT}")
    files = read()
    if plots:
        for path in draw_plots.draw(files, PLOTS):
            typer.echo(f"wrote {path}")
    if lacking := missing(files):
        typer.echo(f"not measured yet: {', '.join(lacking)}")


if __name__ == "__main__":
    typer.run(main)
