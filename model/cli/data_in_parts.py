"""Imports in parts: on one machine, or on Spark."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from model.cli.data_report import show
from model.cli.failures import failures
from model.cli.steps import steps
from model.data.formats import ImportRequest


def streams_by_itself(request: ImportRequest, stream: bool | None) -> bool:
    """Returns whether a log is imported in parts: as the user says, else by its size."""
    if stream is not None:
        return stream
    with failures():
        from model.data.streamed.engine import streams

        return streams(request)


def import_in_parts(request: ImportRequest, out: Path, spark: str | None, as_json: bool) -> None:
    """Imports a log in parts, and prints the report.

    Args:
        request: The options of the import.
        out: Folder of the data set.
        spark: Where Spark runs; None: on this machine, without Spark.
        as_json: Whether to print one line of JSON.
    """
    errors = Console(stderr=True)
    with failures(), steps(errors, "starting") as say:
        if spark is not None:
            from model.spark.importing import import_on_spark

            told = import_on_spark(request, out, spark, say)
        else:
            from model.data.streamed.importing import import_streamed

            try:
                told = import_streamed(request, out, say)
            except KeyboardInterrupt:
                errors.print("interrupted: the same command goes on from here", highlight=False)
                raise
    show(told, out, as_json)
