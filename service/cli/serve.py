"""`gpt4rec serve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    artifact: Annotated[Path | None, typer.Option(help="Artefact folder to serve.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 chooses a free one [8000].")] = None,
    redis: Annotated[str | None, typer.Option(help="`embedded` or a URL [embedded].")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded server's data.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [auto].")] = None,
    policies: Annotated[Path | None, typer.Option(help="Decoding policies file.")] = None,
    role: Annotated[str | None, typer.Option(help="all, answer or encode [all].")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on the port, each with its own engine [1].")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [info].")] = None,
    port_file: Annotated[Path | None, typer.Option(help="File to write the bound port to once ready.")] = None,
) -> None:
    """Serves an artefact over HTTP until a signal.

    Every other setting is an environment variable GPT4REC_…: see docs/reference.md.
    """
    from service.common import logs
    from service.settings.loader import load

    logs.configure()  # until its level is known
    settings = load(
        artifact=artifact,
        host=host,
        port=port,
        redis_url=redis,
        data_dir=data_dir,
        device=device,
        policies=policies,
        role=role,
        workers=workers,
        log_level=log_level,
    )
    # Imported here: they take a second to load, and a misspelt setting should fail at once.
    from service import server
    from service import workers as processes
    from service.api.listeners import bind
    from service.common.atomic_files import require_writable
    from service.process import output

    output.take_over(logs.dropped_notice)
    logs.configure(settings.log_level)
    if port_file is not None:
        require_writable(port_file)  # nobody would find a service that has started without it

    announce = _announcement(settings.host, port_file)
    if settings.workers == 1:
        server.serve_one(settings, [bind(settings.host, settings.port)], announce)
    else:
        processes.serve_many(settings, announce)


def _announcement(host: str, port_file: Path | None) -> Callable[[int], None]:
    """Returns the function that prints the address and writes the port file, once requests are accepted."""
    from service.common import logs
    from service.server import write_port

    def announce(bound: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"gpt4rec is serving on http://{shown}:{bound}")
        if port_file is not None:
            try:
                write_port(port_file, bound)
            except OSError as error:  # the disk has filled up since; what serves goes on serving
                logs.get(__name__).error("port_file_not_written", file=str(port_file), cause=error.strerror)

    return announce
