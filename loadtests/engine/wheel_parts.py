"""Takes wheels to a machine in parts: for transfers that carry less than a wheel has.

    python loadtests/engine/wheel_parts.py split --out PARTS --part-mib 40 WHEEL…     here
    python loadtests/engine/wheel_parts.py join PARTS --install SITE                  there, all parts in one folder

Each part, and each wheel that is joined again, is compared with its SHA-256; nothing is installed from parts that are
missing or damaged. The file needs Python and pip alone: what it brings is not there yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INDEX = "parts.json"
FORMAT = 1
PART_MIB = 40.0
_BLOCK = 2**20


class PartsError(Exception):
    """Parts are missing or damaged, or there is nothing to split."""


def split(wheels: Sequence[Path], out: Path, part_bytes: int) -> list[Path]:
    """Writes the parts of wheels and their index into a folder, which must not hold others.

    Args:
        wheels: The wheels.
        out: The folder.
        part_bytes: Most bytes of a part.

    Returns:
        The files: the index first.

    Raises:
        PartsError: There are no wheels, or the folder is not empty.
    """
    if not wheels:
        raise PartsError("no wheels: name the files to split")
    if out.exists() and any(out.iterdir()):
        raise PartsError(f"{out} is not empty: name a folder of its own, so that no other parts are mixed in")
    out.mkdir(parents=True, exist_ok=True)
    files, described = [], []
    for wheel in wheels:
        content, parts = wheel.read_bytes(), []
        for number, start in enumerate(range(0, max(1, len(content)), part_bytes)):
            part = content[start : start + part_bytes]
            name = f"{wheel.name}.{number:03d}"
            (out / name).write_bytes(part)
            files.append(out / name)
            parts.append({"name": name, "bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()})
        described.append({"wheel": wheel.name, "sha256": hashlib.sha256(content).hexdigest(), "parts": parts})
    index = out / INDEX
    index.write_text(json.dumps({"format": FORMAT, "wheels": described}, indent=1) + "\n", encoding="utf-8")
    return [index, *files]


def join(parts: Path, out: Path) -> list[Path]:
    """Joins the wheels whose parts are in a folder, and returns their files.

    Args:
        parts: Folder of the parts and their index.
        out: Where the wheels are written.

    Raises:
        PartsError: A part is missing or damaged. All of them are named.
    """
    described = _index(parts)
    wrong = [
        problem for wheel in described for part in wheel["parts"] if (problem := _problem(parts, part)) is not None
    ]
    if wrong:
        raise PartsError(f"{parts}: {'; '.join(wrong)}; carry these parts again")
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for wheel in described:
        file = out / _plain(wheel["wheel"])
        with file.open("wb") as whole:
            for part in wheel["parts"]:
                whole.write((parts / _plain(part["name"])).read_bytes())
        if _sha256(file) != wheel["sha256"]:
            file.unlink()
            raise PartsError(f"{file.name} is not what was split: split it again")
        made.append(file)
    return made


def install(wheels: Sequence[Path], site: Path) -> None:
    """Installs wheels into a folder, from themselves alone.

    Raises:
        PartsError: pip did not install them.
    """
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir",
        "--upgrade", "--target", str(site), *map(str, wheels),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - pip, and no shell
    if done.returncode:
        raise PartsError(f"pip did not install them: {done.stderr.strip()[-500:]}")


def _index(parts: Path) -> list[dict[str, Any]]:
    try:
        index = json.loads((parts / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise PartsError(f"{parts / INDEX} has format {index['format']}, not {FORMAT}: split the wheels again")
        wheels: list[dict[str, Any]] = index["wheels"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PartsError(f"{parts / INDEX}: no index of parts ({error}); carry it too") from error
    return wheels


def _problem(folder: Path, part: dict[str, Any]) -> str | None:
    file = folder / _plain(part["name"])
    if not file.is_file():
        return f"{file.name} is missing"
    return None if _sha256(file) == part["sha256"] else f"{file.name} is damaged"


def _plain(name: str) -> str:
    """Returns a name of a file in its folder, whatever the index says."""
    if Path(name).name != name:
        raise PartsError(f"{name!r} is no name of a file")
    return name


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Splits wheels, or joins and installs them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    splitting = commands.add_parser("split", help="write the parts of wheels into a folder")
    splitting.add_argument("wheels", nargs="+", type=Path)
    splitting.add_argument("--out", type=Path, required=True, help="an empty folder")
    splitting.add_argument("--part-mib", type=float, default=PART_MIB, help="most MiB of a part")
    joining = commands.add_parser("join", help="join parts to wheels")
    joining.add_argument("parts", type=Path)
    joining.add_argument("--out", type=Path, help="folder of the wheels; that of the parts without it")
    joining.add_argument("--install", type=Path, help="folder to install them into, for PYTHONPATH")
    given = parser.parse_args(arguments)
    try:
        if given.command == "split":
            files = split(given.wheels, given.out, max(1, int(given.part_mib * 2**20)))
            sys.stdout.write("".join(f"{file.name}\t{file.stat().st_size:,} bytes\n" for file in files))
        else:
            wheels = join(given.parts, given.out or given.parts)
            if given.install is not None:
                install(wheels, given.install)
            sys.stdout.write("".join(f"{file}\n" for file in wheels))
    except (PartsError, OSError) as error:
        sys.stderr.write(f"wheel_parts: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
