"""`gpt4rec data count`: what item-CF and transitions are made of, for logs larger than memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from model.cli.failures import failures
from model.cli.steps import steps
from service.cli.json_report import AsJson

if TYPE_CHECKING:
    from model.signals.shared_users import Kind

_SPLITS = ("leave_one_out", "time")
_KINDS = ("cosine", "tfidf", "bm25")


def users_command(
    data: Annotated[Path, typer.Option(metavar="DATA", help="Data set folder, written by `gpt4rec data`.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File for `gpt4rec ingest encode --users`.")],
) -> None:
    """Write the users of a data set, one JSON object a line, without reading them into memory."""
    with failures():
        import polars as pl

        from model.data.dataset_folder import read_meta
        from service.common.atomic_files import replacing

        read_meta(data)
        users = pl.scan_parquet(data / "users.parquet").select("user_id")
        with replacing(out.absolute()) as aside:
            users.sink_ndjson(aside)
    typer.echo(f"users of {data} in {out}")


def count_command(
    data: Annotated[Path, typer.Option(metavar="DATA", help="Data set folder, written by `gpt4rec data`.")],
    out: Annotated[Path, typer.Option("--out", metavar="COUNTS", help="Folder of the counts to write.")],
    split: Annotated[str, typer.Option(help="What is held out: leave_one_out or time, as in a training.")] = _SPLITS[0],
    validation_users: Annotated[
        int, typer.Option(min=-1, help="The most users to validate on; -1: by rule, 0: all.")
    ] = -1,
    kind: Annotated[str, typer.Option(help="Similarity of the table of item-CF: cosine, tfidf or bm25.")] = _KINDS[0],
    spark: Annotated[
        str | None, typer.Option(metavar="MASTER", help="Count on Spark: local[4], spark://HOST:PORT, yarn, …")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Split a log and count what item-CF and transitions are made of, in parts that fit into memory."""
    for value, known, flag in ((split, _SPLITS, "--split"), (kind, _KINDS, "--kind")):
        if value not in known:
            raise typer.BadParameter(f"{value!r}: choose {' or '.join(known)}", param_hint=flag)
    errors = Console(stderr=True)
    with failures(), steps(errors, "starting") as say:
        from model.signals.counted.range_counts import SplitRule

        rule = SplitRule("time" if split == "time" else "leave_one_out", validation_users)
        if spark is None:
            from model.signals.counted.counting import count_data_set

            told = count_data_set(data, out, rule, cast("Kind", kind), say)
        else:
            from model.spark.counting import count_on_spark

            told = count_on_spark(data, out, spark, rule, cast("Kind", kind), say)
    typer.echo(json.dumps({**told, "path": str(out)}) if as_json else f"counts of {data} in {out}")
