"""`gpt4rec ingest`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from service.cli.ingest_encode import encode_command

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command("encode")(encode_command)


@app.callback()
def ingest() -> None:
    """Reads events from a stream into the store of the service."""


@app.command()
def kafka(
    artifact: Annotated[Path | None, typer.Option(help="Artefact folder of the service.")] = None,
    redis: Annotated[str | None, typer.Option(help="URL of the service's Redis.")] = None,
    brokers: Annotated[str | None, typer.Option(help="Brokers to begin with: host:9092,….")] = None,
    topic: Annotated[str | None, typer.Option(help="Topic of the events (gpt4rec-events).")] = None,
    group: Annotated[str | None, typer.Option(help="Consumer group (gpt4rec).")] = None,
    dead_letter_topic: Annotated[
        str | None, typer.Option(help="Topic of messages that are no events (<topic>-dead-letters).")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics and /healthz; 0 chooses a free one (8010).")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error (info).")] = None,
    port_file: Annotated[Path | None, typer.Option(help="File to write that port to once the group is joined.")] = None,
) -> None:
    """Reads events from a Kafka topic until a signal, and stores them as POST /events does.

    Offsets are committed only after the store acknowledged. Every other setting is an environment variable GPT4REC_…
    (docs/reference.md); those of the service hold here too.
    """
    from service.common import logs
    from service.settings.loader import load, load_kafka

    logs.configure()  # until its level is known
    settings = load(artifact=artifact, redis_url=redis, log_level=log_level)
    of_kafka = load_kafka(
        kafka_brokers=brokers,
        kafka_topic=topic,
        kafka_group=group,
        kafka_dead_letter_topic=dead_letter_topic,
        kafka_metrics_port=metrics_port,
    )
    # Imported here: they take a second to load, and a misspelt setting should fail at once.
    from service.common.atomic_files import require_writable
    from service.intake.process import ingest as run
    from service.process import output

    output.take_over(logs.dropped_notice)
    logs.configure(settings.log_level)
    if port_file is not None:
        require_writable(port_file)  # nobody would find a process that has started without it
    host = of_kafka.kafka_metrics_host
    run(settings, of_kafka, _announcement(f"[{host}]" if ":" in host else host, of_kafka.kafka_topic, port_file))


def _announcement(host: str, topic: str, port_file: Path | None) -> Callable[[int], None]:
    """Returns the function that prints the address of the metrics and writes the port file."""
    from service.common import logs
    from service.common.atomic_files import write_aside

    def announce(bound: int) -> None:
        typer.echo(f"gpt4rec is reading {topic}; metrics on http://{host}:{bound}/metrics")
        if port_file is not None:
            try:
                write_aside(port_file, b"%d\n" % bound)
            except OSError as error:  # the disk has filled up since; what reads goes on reading
                logs.get(__name__).error("port_file_not_written", file=str(port_file), cause=error.strerror)

    return announce
