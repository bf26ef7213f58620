"""The manifest of an artefact: the files it names, and how they are found and verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from service.artifact.graphs.cells import CELLS_FILE
from service.artifact.graphs.encoder_version import EncoderVersion
from service.artifact.graphs.run_sizes import ENTRY as RUN_SIZES
from service.artifact.graphs.run_sizes import RunSizes
from service.artifact.graphs.state_layout import StateLayout
from service.artifact.scorers.order_weights import ORDER_FILE
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY, signal_file

FORMAT = "gpt4rec-artifact"
FORMAT_VERSION = 5
MANIFEST = "manifest.json"
LATEST = "latest"
FILES = (
    "encoder.onnx",
    "decoder.onnx",
    "sampler.onnx",
    "trie.npz",
    "items.npz",
    "catalogue.npz",
    "tokenizer.json",
    "tokenizer.npz",
    signal_file(ITEM_CF),
    signal_file(POPULARITY),
)
# An artefact that serves a scorer instead of a network lacks these files.
GRAPHS = ("encoder.onnx", "decoder.onnx", "sampler.onnx")
EXPLAINER = "explainer.onnx"
# What is taken together in one basket; absent where no basket has two items, and from earlier exports.
TOGETHER_FILE = "together.npz"
# Files that may be absent; if the manifest names them, they are checked like the others.
OPTIONAL = (EXPLAINER, ORDER_FILE, TOGETHER_FILE, CELLS_FILE)
REQUIRED: dict[str, type | tuple[type, ...]] = {
    "model_version": str,
    "network": dict,
    "context": dict,
    "has_time": bool,
    "dtype": str,
    "ranker": dict,
    "files": dict,
    "streaming": bool,
    "receptive_field": int,
}
# Entries of the manifest that are part of the model version.
CONTENT = ("network", "context", "has_time", "dtype", "ranker")
_OTHER_FILE = "is not the file that was exported (checksums differ); export the model again"


class ArtifactFileError(ValueError):
    """The folder is not an artefact that this version can serve; the message names the file and the reason."""


def digest(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an artefact's folder, without reading the content of the other files.

    Raises:
        ArtifactFileError: A file is missing or has the wrong size, or the manifest cannot be used.
    """
    manifest = _parse(folder)
    for name in _listed(manifest):
        expected = manifest["files"].get(name)
        file = folder / name
        if not isinstance(expected, dict) or not file.is_file():
            raise ArtifactFileError(f"{folder}: {name} is missing; export the model again")
        if file.stat().st_size != expected.get("bytes"):
            raise ArtifactFileError(f"{folder}: {name} {_OTHER_FILE}")
    return manifest


def verify_checksums(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compares the content of all files with the manifest's checksums.

    Hashing releases the interpreter's lock, so large files are read in parallel.

    Raises:
        ArtifactFileError: The content of a file differs from its checksum.
    """
    names, files = _listed(manifest), manifest["files"]
    with ThreadPoolExecutor(len(names), "checksum") as pool:
        for name, checksum in zip(names, pool.map(digest, [folder / name for name in names]), strict=True):
            if checksum != files[name].get("sha256"):
                raise ArtifactFileError(f"{folder}: {name} {_OTHER_FILE}")


def _listed(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the files that must exist: those of the format, and the optional ones that the manifest names."""
    return (*required_files(manifest), *(name for name in OPTIONAL if name in manifest["files"]))


def required_files(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the files that an artefact with this manifest must have.

    Raises:
        ValueError: The entry `ranker` of the manifest cannot be used.
    """
    files = FILES if manifest.get("baseline") is None else tuple(name for name in FILES if name not in GRAPHS)
    signals = RankerWeights.from_json(manifest["ranker"]).files
    return (*files, *(name for name in signals if name not in files))


def encoder_version_of(manifest: Mapping[str, Any]) -> EncoderVersion:
    """Returns the encoder version of an artefact; one of its own where the manifest names none.

    Raises:
        ValueError: The entry `encoder` of the manifest cannot be used.
    """
    entry, n_items = manifest.get("encoder"), int(manifest["network"].get("n_items", 0))
    if entry is None:
        return EncoderVersion.alone(str(manifest["model_version"]), n_items)
    return EncoderVersion.from_json(entry)


def repeats_of(manifest: Mapping[str, Any]) -> bool:
    """Returns whether people take the same items again, by the log that the artefact was made from."""
    found = manifest.get("repeats")
    return isinstance(found, Mapping) and found.get("kept") is True


def latest_of(root: Path) -> str | None:
    """Returns the version that the pointer of a folder of artefacts names; None without a pointer."""
    pointer = root / LATEST
    return pointer.read_text("utf-8", errors="replace").strip() if pointer.is_file() else None


def resolve(path: Path) -> Path:
    """Returns the artefact folder that `path` is or points to.

    Raises:
        ArtifactFileError: There is none.
    """
    if (path / MANIFEST).is_file():
        return path
    version = latest_of(path)
    if version is not None:
        if version and Path(version).name == version and (path / version).is_dir():
            return path / version
        raise ArtifactFileError(
            f"{path}: {LATEST} names {version!r}, which does not exist; export the model with --latest"
        )
    raise ArtifactFileError(
        f"{path} is not an artefact: it contains neither {MANIFEST} nor {LATEST}; run `gpt4rec export`"
    )


def _parse(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactFileError(f"{folder}: {MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactFileError(f"{folder}: {MANIFEST} is not a gpt4rec manifest")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactFileError(
            f"{folder}: {MANIFEST} is of format version {manifest.get('format_version')}, this service reads "
            f"{FORMAT_VERSION}; export it again: gpt4rec export --run RUN --out ARTIFACTS"
        )
    missing = [name for name in REQUIRED if name not in manifest]
    if missing:
        raise ArtifactFileError(f"{folder}: {MANIFEST} lacks {', '.join(missing)}; export the model again")
    wrong = [name for name, kind in REQUIRED.items() if not isinstance(manifest[name], kind)]
    if wrong:
        raise ArtifactFileError(
            f"{folder}: {MANIFEST} has a value of the wrong type in {', '.join(wrong)}; export the model again"
        )
    readers: dict[str, Callable[[], object]] = {
        "ranker": lambda: RankerWeights.from_json(manifest["ranker"]),
        "encoder": lambda: encoder_version_of(manifest),
        RUN_SIZES: lambda: RunSizes.from_json(manifest.get(RUN_SIZES)),
        "state": lambda: StateLayout.from_json(manifest["state"]) if "state" in manifest else None,
    }
    for name, read in readers.items():
        try:
            read()
        except ValueError as error:
            raise ArtifactFileError(
                f"{folder}: {MANIFEST} has an entry {name} that cannot be used: {error}; export the model again"
            ) from error
    return manifest
