"""Locks the packages of the images by version and hash: `python -m deploy.locks`.

There is one lock for each image, `deploy/requirements/{cpu,gpu}.txt`, resolved by uv (extra `dev`) for Linux on x86-64
and the Python of that image. `--check` installs a lock into a clean environment as its Dockerfile does, and runs
`gpt4rec serve --help` there; a lock for a different Python is only installed into a folder. The size of the installed
tree is written to `docs/deployment.md`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from service.cli.outermost import run_command

REPOSITORY = Path(__file__).resolve().parent.parent
LOCKS = REPOSITORY / "deploy" / "requirements"
DOCUMENT = REPOSITORY / "docs" / "deployment.md"
# Python version of each image.
IMAGES = {"cpu": "3.11", "gpu": "3.12"}
# What the Dockerfiles copy to build the wheel.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "service")
_PLATFORM = "x86_64-manylinux_2_28"
_INSTALL = ("--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes")


def lock(name: str) -> None:
    """Locks the newest packages that pyproject.toml allows. Raises CalledProcessError if they cannot be resolved."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", name, "--generate-hashes",
        "--python-version", IMAGES[name], "--python-platform", _PLATFORM, "--no-header", "--no-annotate",
        "--no-emit-index-url", "--quiet", "--upgrade", "-o", str(LOCKS / f"{name}.txt"),
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=REPOSITORY)  # noqa: S603 - our own command


def check(name: str) -> int:
    """Installs a lock in a clean place, and returns the size of the installed tree in bytes.

    Raises CalledProcessError if a command fails, or if a training package was installed.
    """
    own = ".".join(map(str, sys.version_info[:2]))
    with tempfile.TemporaryDirectory(prefix="gpt4rec-image-") as folder:
        installed = _environment if IMAGES[name] == own else _folder
        tree = installed(name, Path(folder))
        return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def state(name: str, size: int) -> None:
    """Writes the size to the image's line of the document. Raises ValueError if there is no such line."""
    text = DOCUMENT.read_text(encoding="utf-8")
    changed, count = re.subn(rf"(?m)^(\| {name} \|.*\| )\S+ MiB \|$", rf"\g<1>{round(size / 2**20)} MiB |", text)
    if count != 1:
        raise ValueError(f"{DOCUMENT} has no table line for the image {name}")
    DOCUMENT.write_text(changed, encoding="utf-8")


def _environment(name: str, folder: Path) -> Path:
    """Runs the commands of the Dockerfile, and returns the environment."""
    venv, wheels, source = folder / "venv", folder / "wheels", folder / "src"
    source.mkdir()
    for part in SOURCES:
        copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
        copy(REPOSITORY / part, source / part)
    python = str(venv / "bin" / "python")
    _run(sys.executable, "-m", "venv", str(venv))
    _run(python, "-m", "pip", "install", *_INSTALL, "-r", str(LOCKS / f"{name}.txt"))
    _run(python, "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", str(wheels), str(source))
    _run(python, "-m", "pip", "install", "--no-cache-dir", "--no-deps", *map(str, wheels.glob("*.whl")))
    _run(python, "-m", "pip", "uninstall", "--yes", "pip", "setuptools")
    _run(str(venv / "bin" / "gpt4rec"), "serve", "--help", cwd=folder)
    absent = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('model', 'torch', 'onnx', 'polars'))))"
    _run(python, "-c", absent, cwd=folder)
    return venv


def _folder(name: str, folder: Path) -> Path:
    """Installs the packages for another Python by the same hashes, and returns the folder."""
    tree = folder / "tree"
    _run(
        sys.executable, "-m", "uv", "pip", "install", "--no-cache", "--no-deps", "--only-binary=:all:",
        "--require-hashes", "--quiet", "--python-version", IMAGES[name], "--python-platform", _PLATFORM,
        "--target", str(tree), "-r", str(LOCKS / f"{name}.txt"),
    )  # fmt: skip
    return tree


def _run(*command: str, cwd: Path | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # a clean one
    subprocess.run(command, check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own


def main(
    only: Annotated[str, typer.Option(help="cpu or gpu; without it, both.")] = "",
    try_it: Annotated[
        bool, typer.Option("--check", help="Install the present locks instead of updating them.")
    ] = False,
) -> None:
    """Updates the locks of the images, or checks them."""
    names = [only] if only else list(IMAGES)
    if not set(names) <= set(IMAGES):
        raise typer.BadParameter("choose cpu or gpu", param_hint="--only")
    for name in names:
        if try_it:
            state(name, check(name))
        else:
            lock(name)


if __name__ == "__main__":
    run_command(main)
