"""HAProxy and nginx in front of replicas, with the files of `deploy/`; only addresses and paths are replaced."""

from __future__ import annotations

import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadtests.harness.served_process import REPOSITORY, free_port

ProxyName = Literal["haproxy", "nginx"]
NAMES: tuple[ProxyName, ...] = ("haproxy", "nginx")
FILES: dict[ProxyName, Path] = {
    "haproxy": REPOSITORY / "deploy" / "haproxy" / "haproxy.cfg",
    "nginx": REPOSITORY / "deploy" / "nginx" / "nginx.conf",
}
# The addresses of the replicas in those files.
WRITTEN = ("127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003")
_START_S = 20.0


class ProxyError(RuntimeError):
    """A proxy does not start, or refuses its configuration; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy.

    Attributes:
        name: Which one.
        url: Where shops call it.
        operators_url: Where operators call it.
        admin: Its socket for questions; None without one.
    """

    name: ProxyName
    url: str
    operators_url: str
    admin: Path | None

    def sends_to(self, replica: int) -> bool:
        """Returns whether it sends requests to a replica, counted from 0, as far as it says so.

        nginx keeps it to itself: it tries a replica again a second after a failure.
        """
        if self.admin is None:
            return True
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5.0)
            asked.connect(str(self.admin))
            asked.sendall(b"show stat\n")
            text = b"".join(iter(lambda: asked.recv(65_536), b"")).decode()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        states = {row["svname"]: row["status"] for row in rows if row["pxname"] == "gpt4rec"}
        return states.get(f"replica{replica + 1}", "").startswith("UP")


def rendered(name: ProxyName, folder: Path, replicas: Sequence[int], public: int, operators: int) -> str:
    """Returns the configuration with other addresses.

    Args:
        name: Which proxy.
        folder: Where it keeps its socket or the file of its process id.
        replicas: Ports of the replicas, as many as the file names.
        public: Port for shops.
        operators: Port for operators.

    Raises:
        ProxyError: The file does not have what is to be replaced.
    """
    changes = {old: f"127.0.0.1:{port}" for old, port in zip(WRITTEN, replicas, strict=True)}
    changes["127.0.0.1:8081"] = f"127.0.0.1:{operators}"
    changes["/run/"] = f"{folder}/"
    changes["bind :8080" if name == "haproxy" else "listen 8080"] = (
        f"bind 127.0.0.1:{public}" if name == "haproxy" else f"listen 127.0.0.1:{public}"
    )
    text = FILES[name].read_text(encoding="utf-8")
    for old, new in changes.items():
        if old not in text:
            raise ProxyError(f"{FILES[name]} has no {old}")
        text = text.replace(old, new)
    return text


def command(name: ProxyName, config: Path, *, check: bool = False) -> list[str]:
    """Returns the command that runs a proxy in the foreground, or only checks its configuration."""
    # Debian keeps both outside the path of users.
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or name
    if name == "haproxy":
        return [program, "-c" if check else "-db", "-f", str(config)]
    # The logs that are open before the file is read, and the folders of large bodies.
    given = [program, "-p", str(config.parent), "-e", "stderr", "-c", str(config)]
    return [*given, "-t"] if check else [*given, "-g", "daemon off;"]


def installed(name: ProxyName) -> bool:
    """Returns whether this machine has the proxy."""
    return Path(command(name, Path("/"))[0]).is_absolute()


@contextmanager
def proxy(name: ProxyName, folder: Path, replicas: Sequence[int]) -> Iterator[Proxy]:
    """Runs a proxy until the body ends.

    Args:
        name: Which one.
        folder: An existing folder for its files.
        replicas: Ports of the replicas.

    Raises:
        ProxyError: It refuses its configuration, or does not listen.
    """
    public, operators = free_port(), free_port()
    config = folder / FILES[name].name
    config.write_text(rendered(name, folder, replicas, public, operators), encoding="utf-8")
    checked = subprocess.run(command(name, config, check=True), check=False, capture_output=True, text=True)  # noqa: S603
    if checked.returncode:
        raise ProxyError(f"{name} refuses {config}: {checked.stdout}{checked.stderr}")
    log = folder / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command(name, config), stdout=out, stderr=out)  # noqa: S603 - our own command
    try:
        until = time.monotonic() + _START_S
        while not _listens(public):
            if process.poll() is not None or time.monotonic() > until:
                raise ProxyError(f"{name} does not listen: {log.read_text(encoding='utf-8')[-500:]}")
            time.sleep(0.02)
        admin = folder / "haproxy-gpt4rec.sock" if name == "haproxy" else None
        yield Proxy(name, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{operators}", admin)
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False
