"""The artefact: everything the service needs of a trained model, in one folder of checked files.

    <model_version>/
      manifest.json                   what this is, and the sha256 of every other file
      encoder.onnx  decoder.onnx      the graphs
      trie.npz  items.npz             the catalogue as tensors: token paths, item embeddings
      catalogue.jsonl                 the catalogue for people: ids, titles, categories
      tokenizer.json  tokenizer.npz   the fitted tokenizer
      itemcf.npz  popularity.npz      what answers when the model cannot

A writer fills a temporary folder and renames it, so a reader sees all of it or nothing. Nothing is pickled.
Reading needs neither torch nor onnxruntime.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.catalogue import Catalogue
from export.features import ContextVocabulary, Vocabulary
from export.itemcf import ItemCF, Popularity
from export.trie import Trie

FORMAT = "gpt4rec-artifact"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LATEST = "latest"
FILES = (
    "encoder.onnx",
    "decoder.onnx",
    "trie.npz",
    "items.npz",
    "catalogue.jsonl",
    "tokenizer.json",
    "tokenizer.npz",
    "itemcf.npz",
    "popularity.npz",
)
REQUIRED = ("model_version", "network", "context", "has_time", "dtype", "blend", "files", "streaming")


class ArtifactFileError(ValueError):
    """The folder is not an artefact this version can serve; the message says which file and why."""


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A verified artefact. Its parts are read on first use."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Artifact:
        """Read and verify `path`: an artefact, or a folder of artefacts whose `latest` names one.

        Raises ArtifactFileError when a file is missing, differs from its checksum, or the format is another one.
        """
        folder = resolve(Path(path))
        manifest = _read_manifest(folder)
        for name in FILES:
            expected = manifest["files"].get(name)
            file = folder / name
            if expected is None or not file.is_file():
                raise ArtifactFileError(f"{folder}: {name} is missing; export the model again")
            if digest(file) != expected["sha256"]:
                raise ArtifactFileError(
                    f"{folder}: {name} is not the file that was exported (checksums differ); export the model again"
                )
        artifact = cls(folder, manifest)
        artifact._check()
        return artifact

    @property
    def model_version(self) -> str:
        return str(self.manifest["model_version"])

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's configuration, as `model.network.NetworkConfig` writes it."""
        network: Mapping[str, Any] = self.manifest["network"]
        return network

    @property
    def levels(self) -> int:
        return len(self.network["code_sizes"])

    @property
    def receptive_field(self) -> int:
        return int(self.manifest["receptive_field"])

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.load(self.folder / "catalogue.jsonl")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        index = {item_id: row for row, item_id in enumerate(self.catalogue.item_ids)}
        context = ContextVocabulary.from_json(self.manifest["context"])
        return Vocabulary(index, context, bool(self.manifest["has_time"]))

    @cached_property
    def trie(self) -> Trie:
        return Trie.load(self.folder / "trie.npz")

    @cached_property
    def item_table(self) -> npt.NDArray[np.float32]:
        """[N + 2, d] e_item, then the unknown item and the start token."""
        with np.load(self.folder / "items.npz", allow_pickle=False) as file:
            table: npt.NDArray[np.float32] = file["item_table"]
        return table

    @cached_property
    def item_cf(self) -> ItemCF:
        return ItemCF.load(self.folder / "itemcf.npz")

    @cached_property
    def popularity(self) -> Popularity:
        return Popularity.load(self.folder / "popularity.npz")

    def _check(self) -> None:
        """The parts must agree with each other: a swapped file may have a right checksum in a wrong manifest."""
        try:
            sizes = {
                "catalogue": len(self.catalogue),
                "trie": self.trie.n_items,
                "items": len(self.item_table) - 2,
                "item-CF": len(self.item_cf.neighbour),
                "popularity": len(self.popularity.share),
            }
        except (ValueError, OSError, KeyError) as error:
            raise ArtifactFileError(f"{self.folder}: {error}") from error
        if len(set(sizes.values())) != 1 or self.network["n_items"] not in sizes.values():
            raise ArtifactFileError(f"{self.folder}: the parts disagree on the number of items: {sizes}")
        if self.trie.levels != self.levels or self.item_table.shape[1] != self.network["d_model"]:
            raise ArtifactFileError(f"{self.folder}: trie or item embeddings do not fit the network")


def resolve(path: Path) -> Path:
    """The artefact folder meant by `path`. Raises ArtifactFileError where there is none."""
    if (path / MANIFEST).is_file():
        return path
    pointer = path / LATEST
    if pointer.is_file():
        return path / pointer.read_text("utf-8").strip()
    raise ArtifactFileError(f"{path} is no artefact: neither {MANIFEST} nor {LATEST} is in it; run `gpt4rec export`")


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactFileError(f"{folder}: {MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactFileError(f"{folder}: {MANIFEST} is not a gpt4rec manifest")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactFileError(
            f"{folder}: format version {manifest.get('format_version')}, this service reads {FORMAT_VERSION}; "
            "export the model with the service's own version"
        )
    missing = [name for name in REQUIRED if name not in manifest]
    if missing:
        raise ArtifactFileError(f"{folder}: {MANIFEST} lacks {', '.join(missing)}")
    return manifest


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A temporary folder beside the artefacts, removed unless `publish` has renamed it."""
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seal(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Write the manifest with every file's checksum; the version is `name` and a digest of the content."""
    files = {f: {"sha256": digest(folder / f), "bytes": (folder / f).stat().st_size} for f in FILES}
    content = hashlib.sha256(json.dumps([files, manifest["network"]], sort_keys=True).encode()).hexdigest()
    full = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model_version": f"{name}-{content[:10]}",
        **manifest,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(full, indent=1, ensure_ascii=False), "utf-8")
    return full


def publish(folder: Path, root: Path) -> Path:
    """Rename a sealed folder to its version and point `latest` at it. Publishing the same content again is a
    no-op."""
    version = str(json.loads((folder / MANIFEST).read_text("utf-8"))["model_version"])
    target = root / version
    if not target.exists():
        folder.chmod(0o755)
        folder.rename(target)
    pointer = root / f".{LATEST}-{os.getpid()}"
    pointer.write_text(version + "\n", "utf-8")
    pointer.replace(root / LATEST)
    return target
