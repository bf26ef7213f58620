"""`gpt4rec loop sink` as a process."""

from __future__ import annotations

from pathlib import Path

from loadtests.harness.command_process import CommandProcess


class SinkProcess(CommandProcess):
    """A running sink.

    Args:
        folder: Where its messages and port file go.
        redis_url: The store.
        log: Folder of the log.
        arguments: More arguments of the command.
        environment: Settings.
    """

    def __init__(self, folder: Path, redis_url: str, log: Path, *arguments: str, **environment: str) -> None:
        command = ("deploy.loop.command", "sink", "--redis", redis_url, "--log", str(log), *arguments)
        super().__init__("sink", folder, command, {"POLARS_MAX_THREADS": "1", **environment})

    def ready(self) -> dict[str, bool]:
        """Returns the checks of /readyz."""
        checks: dict[str, bool] = self.readiness()["checks"]
        return checks
