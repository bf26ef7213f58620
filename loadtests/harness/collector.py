"""A collector of spans in processes of its own: Rotel, where its package is installed, and a receiver behind it.

    with collector(folder) as collected:
        serve(…, GPT4REC_TRACES=collected.url)
        collected.spans()                        every span that arrived

Rotel (`pip install rotel`, of the extra `load`) is an OpenTelemetry collector in a wheel. It passes on what it was
sent, over OTLP/HTTP as well, and the receiver writes it down. Without Rotel, services send to the receiver.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtests.harness.served_process import free_port, listening

_PATH = "/v1/traces"


@dataclass(frozen=True, slots=True)
class Collected:
    """A running collector.

    Attributes:
        name: What collects.
        url: Where spans are sent.
        file: Where the receiver writes them.
    """

    name: str
    url: str
    file: Path

    def spans(self) -> list[dict[str, Any]]:
        """Returns the spans that have arrived so far, as `loadtests.harness.otlp_receiver` writes them."""
        lines = self.file.read_bytes().rpartition(b"\n")[0].splitlines() if self.file.exists() else []
        return [orjson.loads(line) for line in lines]


def rotel() -> Path | None:
    """Returns the program of Rotel; None if its package is not installed."""
    found = importlib.util.find_spec("rotel")
    program = None if found is None or found.origin is None else Path(found.origin).parent / "rotel-agent"
    return program if program is not None and program.is_file() else None


@contextmanager
def collector(folder: Path) -> Iterator[Collected]:
    """Runs a collector until the body ends; its files are in `folder`.

    Raises:
        NotReadyError: It does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, port, program = folder / "spans.jsonl", free_port(), rotel()
    with ExitStack() as stack:
        command = [sys.executable, "-m", "loadtests.harness.otlp_receiver", str(port), str(file)]
        _, url, _ = stack.enter_context(listening(command, port, "/", folder / "receiver.log", {}))
        if program is None:
            yield Collected("the receiver alone", f"{url}{_PATH}", file)
            return
        in_front = stack.enter_context(_rotel(program, url, folder))
        yield Collected(f"Rotel {_version(program)}", f"{in_front}{_PATH}", file)


@contextmanager
def _rotel(program: Path, to: str, folder: Path) -> Iterator[str]:
    """Runs Rotel in front of a receiver; yields the URL at which it is sent spans."""
    port = free_port()
    command = [
        str(program), "start", "--otlp-http-endpoint", f"127.0.0.1:{port}",
        "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}", "--batch-timeout", "100ms",
        "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", to,
    ]  # fmt: skip
    # It has no page of its own to ask for: any answer will do.
    with listening(command, port, "/", folder / "rotel.log", {}, status=b"404") as (_, url, _ready_s):
        yield url


def _version(program: Path) -> str:
    said = subprocess.run([str(program), "--version"], check=False, capture_output=True, text=True)  # noqa: S603
    return said.stdout.split()[-1] if said.stdout.split() else "of an unknown version"
