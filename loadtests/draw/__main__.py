"""Draws the documents of measured figures and their plots from loadtests/results/*.json: `python -m loadtests.draw`.

    docs/performance.md    from loadtests/draw/templates/performance.md
    docs/reliability.md    from loadtests/draw/templates/reliability.md
    docs/quality.md        from loadtests/draw/templates/quality.md
    docs/model-card.md     from loadtests/draw/templates/model-card.md
    docs/loop-figures.md   from loadtests/draw/templates/loop-figures.md
    docs/memory-figures.md from loadtests/draw/templates/memory-figures.md
    docs/shop-figures.md   from loadtests/draw/templates/shop-figures.md
    docs/fleet-figures.md  from loadtests/draw/templates/fleet-figures.md
    docs/capacity.md       from loadtests/draw/templates/capacity.md

A template holds the prose of a page. `{{name}}` in it stands for the section drawn from the results file of that name,
`{{criteria}}` for the criteria of the page, `{{limits}}` for those with a limit, `{{machine}}` for the machines and
versions, and `{{summary_…}}` for parts of the summary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.common import limit_criteria, results
from loadtests.draw import (
    capacity,
    engine_tables,
    fleet_failover,
    loop,
    method_verdicts,
    methods,
    performance_summary,
    quality,
    quality_ranker,
    quality_summary,
    reliability,
    tables,
    timelines,
)
from loadtests.draw import plots as draw_plots
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True, slots=True)
class Document:
    """The page docs/<name>.md with its plots in docs/<name>/.

    Attributes:
        name: Name of the page, of its template and of the folder of its plots.
        rows: The file of its criteria.
        sections: Name of a results file → what draws the section from its content.
        plots: Given the files that exist, the plots that can be drawn from them: name → function of the axes.
        shown: Section → the plots below it, each with its title.
        summary: Placeholder at the top of the page → what draws it from the criteria and all files.
        of_other_rows: Placeholder → another file of criteria, and what draws it from all files and these.
    """

    name: str
    rows: Path
    sections: Mapping[str, Callable[[Mapping[str, Any]], str]]
    plots: Callable[[Mapping[str, Any]], dict[str, draw_plots.How]]
    shown: Mapping[str, Mapping[str, str]]
    summary: Mapping[str, Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], str]] = field(default_factory=dict)
    of_other_rows: Mapping[str, tuple[Path, Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], str]]] = field(
        default_factory=dict
    )

    @property
    def template(self) -> Path:
        """Template of the page."""
        return Path(__file__).resolve().parent / "templates" / f"{self.name}.md"

    @property
    def path(self) -> Path:
        """Where the page is written."""
        return DOCS / f"{self.name}.md"

    @property
    def folder(self) -> Path:
        """Folder of the plots."""
        return DOCS / self.name


PERFORMANCE = Document(
    "performance",
    results.ENGINE,
    {**tables.SECTIONS, **engine_tables.SECTIONS},
    draw_plots.wanted,
    {
        "peers": {"peers": "Requests a second of each system"},
        "scale": {"scale": "Time over the size of the catalogue"},
        "cells": {"cells": "Recall of the exhaustive top ten over the time of a list"},
        "curves": {
            "history": "Latency over the length of the history",
            "k": "Latency over k",
            "beam": "Latency over the beam width",
            "concurrency": "Latency over requests at once",
            "batch": "Time a row over the batch",
        },
        "soak": {"soak": "Latency by percentile", "memory": "Resident memory over time"},
    },
    performance_summary.SUMMARY,
)
RELIABILITY = Document(
    "reliability",
    results.RELIABILITY,
    reliability.SECTIONS,
    timelines.wanted,
    {
        "overload": {
            "overload": "Answers of each second by rung, at 1, 2, 5 and 10 times the capacity",
            "overload_model": "Lists of the model in each second of the same runs",
        },
        "breach": {
            "latency_breach": "Answers by rung while the model is slow, and after",
            "error_breach": "Answers by rung while the model fails, and after",
        },
        "toggle": {"toggle": "How soon both replicas followed a new mode"},
    },
)
QUALITY = Document(
    "quality",
    results.QUALITY,
    quality.SECTIONS,
    quality.wanted,
    {
        "quality_ranking": {"training": "Validation NDCG@10 over the time of training"},
        "quality_peers": {"anchor": "Validation NDCG@10 over the epochs of RecTools' SASRec"},
        "quality_lists": {
            f"frontier-{data}": f"Accuracy and diversity of every strategy on {data}"
            for data in ("movielens-100k", "Beauty")
        },
    },
    {**quality_summary.SUMMARY, **quality_ranker.SUMMARY},
    {"method_verdicts": (results.MEMORY, method_verdicts.verdicts)},
)
MODEL_CARD = Document(
    "model-card",
    results.QUALITY,
    quality.CARD,
    lambda _: {},
    {},
    quality_ranker.SUMMARY,
)
LOOP = Document(
    "loop-figures",
    results.LOOP,
    loop.SECTIONS,
    loop.wanted,
    {
        "loop_whole": {
            "cycles": "Clicks per list by cycle, of the users of the loop and of the hold-out",
            "foretold": "Clicks per thousand lists of both arms, predicted and measured",
        }
    },
    loop.SUMMARY,
)
MEMORY = Document("memory-figures", results.MEMORY, methods.SECTIONS, lambda _: {}, {})
SHOP = Document("shop-figures", results.SHOP, {}, lambda _: {}, {})
FLEET = Document("fleet-figures", results.FLEET, fleet_failover.SECTIONS, lambda _: {}, {})
CAPACITY = Document("capacity", results.FLEET, capacity.SECTIONS, lambda _: {}, {}, capacity.SUMMARY)
DOCUMENTS = (PERFORMANCE, RELIABILITY, QUALITY, MODEL_CARD, LOOP, MEMORY, SHOP, FLEET, CAPACITY)


def read(document: Document, folder: Path = results.RESULTS) -> dict[str, Any]:
    """Reads the results file of every section; None for a file that does not exist."""
    return {name: results.load(name, folder) for name in document.sections}


def render(document: Document, folder: Path = results.RESULTS, template: Path | None = None) -> str:
    """Returns the text of the page.

    Raises:
        ValueError: If the template has a placeholder that nothing fills.
    """
    template = template or document.template
    files, rows = read(document, folder), results.read_rows(folder / document.rows.name)
    limited = [row for row in rows if row["limit"] is not None]
    elsewhere = limit_criteria.of_limits(rows)  # they have a table of their own
    parts = {
        "criteria": tables.criteria([row for row in rows if row["criterion"] not in elsewhere]),
        "limits": tables.criteria(limited),
        "machine": tables.machine(files, rows),
        **{name: draw(rows, files) for name, draw in document.summary.items()},
        **{
            name: draw(files, results.read_rows(folder / other.name))
            for name, (other, draw) in document.of_other_rows.items()
        },
    }
    plots = document.plots(files)
    for name, section in document.sections.items():
        found, shown = files[name], document.shown.get(name, {})
        images = [f"![{title}]({document.name}/{plot}.svg)" for plot, title in shown.items() if plot in plots]
        parts[name] = "\n\n".join([section(found), *images]) if found else tables.NOT_YET

    def fill(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise ValueError(f"{template}: nothing fills the placeholder {match[0]}")
        return parts[match[1]]

    return re.sub(r"\{\{(\w+)\}\}", fill, template.read_text(encoding="utf-8"))


def missing(files: Mapping[str, Any]) -> list[str]:
    """Returns the names of the results files that do not exist."""
    return [name for name, found in files.items() if found is None]


def write(document: Document, *, plots: bool) -> None:
    """Writes a document and, if `plots` is true, its plots."""
    write_aside(document.path, render(document).encode())
    typer.echo(f"wrote {document.path}")
    files = read(document)
    if plots:
        for path in draw_plots.draw(document.plots(files), document.folder):
            typer.echo(f"wrote {path}")
    if lacking := missing(files):
        typer.echo(f"not measured yet: {', '.join(lacking)}")


def current(document: Document) -> bool:
    """Returns whether the document is what would be drawn now."""
    return document.path.exists() and document.path.read_text(encoding="utf-8") == render(document)


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if a document is out of date.")
    ] = False,
    plots: Annotated[bool, typer.Option(help="Draw the plots too (needs matplotlib).")] = True,
) -> None:
    """Draws the documents of measured figures and their plots."""
    if not check:
        for document in DOCUMENTS:
            write(document, plots=plots)
        return
    if old := [str(document.path) for document in DOCUMENTS if not current(document)]:
        typer.echo(f"out of date: {', '.join(old)}: python -m loadtests.draw", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
