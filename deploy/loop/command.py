"""`gpt4rec loop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from deploy.loop.run import command as run_commands
from service.cli.outermost import run_command
from service.common import logs

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def loop() -> None:
    """Carries what was shown, and what came of it, to the next model."""


app.command("run")(run_commands.run)
app.command("status")(run_commands.status)


@app.command()
def sink(
    redis: Annotated[str | None, typer.Option(help="URL of the service's Redis.")] = None,
    log: Annotated[str | None, typer.Option(help="Folder of the log, or a URL that fsspec knows.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Prefix of the service's keys (gpt4rec:).")] = None,
    batch_s: Annotated[float | None, typer.Option(help="Longest time that an entry waits for others (60).")] = None,
    retention_days: Annotated[int | None, typer.Option(help="Days that the log is kept; 0: for good (90).")] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when everything has been read and written.")] = False,
    erase_now: Annotated[
        bool, typer.Option("--erase-now", help="Rewrite the files without erased subjects now, not in some hours.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics and /healthz; 0 chooses a free one (8011).")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error (info).")] = None,
    port_file: Annotated[Path | None, typer.Option(help="File to write that port to.")] = None,
) -> None:
    """Writes exposures and events to Parquet files until a signal.

    Every entry of the streams is in a file once, and acknowledged only when the file is safe. Every other setting is an
    environment variable GPT4REC_… (docs/reference.md).
    """
    from service.settings.loader import load, load_exposures_topic, load_sink

    logs.configure()  # until its level is known
    settings = load(redis_url=redis, redis_prefix=prefix, log_level=log_level)
    own = load_sink(
        sink_log=log, sink_batch_s=batch_s, sink_retention_days=retention_days, sink_metrics_port=metrics_port
    )
    kafka = load_exposures_topic()
    # Imported here: they take a second to load, and a misspelt setting should fail at once.
    from deploy.loop.sink.process import sink as run
    from service.common.atomic_files import require_writable
    from service.process import output

    output.take_over(logs.dropped_notice)
    logs.configure(settings.log_level)
    if port_file is not None:
        require_writable(port_file)  # nobody would find a process that has started without it
    host = own.sink_metrics_host
    announce = _announcement(f"[{host}]" if ":" in host else host, own.sink_log, port_file)
    run(settings, own, kafka, announce, once=once, erase_now=erase_now)


def _announcement(host: str, folder: str, port_file: Path | None) -> Callable[[int], None]:
    """Returns the function that prints the address of the metrics and writes the port file."""
    from service.common.atomic_files import write_aside

    def announce(bound: int) -> None:
        typer.echo(f"gpt4rec writes the log to {folder}; metrics on http://{host}:{bound}/metrics")
        if port_file is not None:
            try:
                write_aside(port_file, b"%d\n" % bound)
            except OSError as error:  # the disk has filled up since; what reads goes on reading
                logs.get(__name__).error("port_file_not_written", file=str(port_file), cause=error.strerror)

    return announce


if __name__ == "__main__":
    run_command(app)
