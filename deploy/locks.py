"""Writes the packages of the images, by version and hash: `python -m deploy.locks`.

One file for each image, `deploy/requirements/{cpu,gpu}.txt`, resolved by uv (extra `dev`) for Linux on x86-64 and the
Python of that image. `--check` installs a lock as its Dockerfile does, into a clean environment, starts `gpt4rec serve
--help` there, and records the size of what was installed in `deploy/requirements/sizes.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

REPOSITORY = Path(__file__).resolve().parent.parent
LOCKS = REPOSITORY / "deploy" / "requirements"
SIZES = LOCKS / "sizes.json"
# The Python of each image.
IMAGES = {"cpu": "3.11", "gpu": "3.12"}
_INSTALL = ("--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes")


def lock(name: str) -> None:
    """Resolves the newest packages that pyproject.toml allows. Raises CalledProcessError where there are none."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", name, "--generate-hashes",
        "--python-version", IMAGES[name], "--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate",
        "--no-emit-index-url", "--quiet", "--upgrade", "-o", str(LOCKS / f"{name}.txt"),
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=REPOSITORY)  # noqa: S603 - our own command


def check(name: str) -> int:
    """Runs the Dockerfile's install commands in a clean environment; the installed tree in bytes.

    Raises CalledProcessError where a command fails, or torch got in.
    """
    with tempfile.TemporaryDirectory(prefix="gpt4rec-image-") as folder:
        venv, wheels = Path(folder) / "venv", Path(folder) / "wheels"
        python = str(venv / "bin" / "python")
        _run(sys.executable, "-m", "venv", str(venv))
        _run(python, "-m", "pip", "install", *_INSTALL, "-r", str(LOCKS / f"{name}.txt"))
        _run(python, "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", str(wheels), str(REPOSITORY))
        _run(python, "-m", "pip", "install", "--no-cache-dir", "--no-deps", *map(str, wheels.glob("*.whl")))
        _run(python, "-m", "pip", "uninstall", "--yes", "pip", "setuptools")
        _run(str(venv / "bin" / "gpt4rec"), "serve", "--help", cwd=folder)
        absent = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'onnx', 'polars'))))"
        _run(python, "-c", absent, cwd=folder)
        return sum(path.stat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())


def _run(*command: str, cwd: str | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL)  # noqa: S603 - our own commands


def main(
    only: Annotated[str, typer.Option(help="cpu or gpu; both without.")] = "",
    try_it: Annotated[bool, typer.Option("--check", help="Install the locks as they are instead.")] = False,
) -> None:
    """Writes the locks of the images, or tries them."""
    names = [only] if only else list(IMAGES)
    if not set(names) <= set(IMAGES):
        raise typer.BadParameter("cpu or gpu", param_hint="--only")
    sizes = json.loads(SIZES.read_text(encoding="utf-8")) if SIZES.exists() else {}
    for name in names:
        if not try_it:
            lock(name)
            continue
        sizes[name] = {"mib": round(check(name) / 2**20), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
        typer.echo(f"{name}: {sizes[name]['mib']} MiB")
        SIZES.write_text(json.dumps(sizes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
