"""Certificates of a shop's servers, made with openssl: an authority, and a key that it signed for this machine."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_SUBJECT = "/CN=gpt4rec test"
_NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


def make(folder: Path) -> Path:
    """Makes `ca.pem`, `server.pem` and `server.key` in a new folder, and returns it.

    Raises:
        OSError: There is no openssl, or it failed.
    """
    folder.mkdir(parents=True)
    (folder / "names").write_text(_NAMES)
    new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj")
    _run(folder, *new, f"{_SUBJECT} authority", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    _run(folder, *new, _SUBJECT, "-keyout", "server.key", "-out", "server.csr")
    _run(folder, "openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
         "-CAcreateserial", "-extfile", "names", "-out", "server.pem")  # fmt: skip
    return folder


def options(folder: Path, port: int) -> dict[str, str]:
    """Returns options of a server that listens with TLS only, also for replicas and other nodes."""
    return {
        "port": "0", "tls-port": str(port), "tls-replication": "yes", "tls-auth-clients": "no",
        "tls-cert-file": str(folder / "server.pem"), "tls-key-file": str(folder / "server.key"),
        "tls-ca-cert-file": str(folder / "ca.pem"),
    }  # fmt: skip


def client(folder: Path) -> ssl.SSLContext:
    """Returns what a client needs to trust the servers."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.check_hostname = False  # it is connected by address
    return context


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        raise OSError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
