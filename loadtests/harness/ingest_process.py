"""`gpt4rec ingest kafka` as a process. Its port is known when it has joined the group."""

from __future__ import annotations

from pathlib import Path

from loadtests.harness.command_process import CommandProcess


class IngestProcess(CommandProcess):
    """A running intake.

    Args:
        folder: Where its messages and port file go.
        artifact: Artefact folder.
        redis_url: The store.
        brokers: The brokers.
        arguments: More arguments of the command.
        environment: Settings.
    """

    def __init__(
        self, folder: Path, artifact: Path, redis_url: str, brokers: str, *arguments: str, **environment: str
    ) -> None:
        command = (
            "service.cli", "ingest", "kafka", "--artifact", str(artifact), "--redis", redis_url, "--brokers", brokers,
            *arguments,
        )  # fmt: skip
        super().__init__("ingest", folder, command, {"OMP_NUM_THREADS": "1", **environment})

    def partitions(self) -> list[int]:
        """Returns the partitions that it reads."""
        found: list[int] = self.readiness()["partitions"]
        return found
