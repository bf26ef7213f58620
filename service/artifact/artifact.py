"""The artefact: everything the service needs of a trained model, in one folder of checked files.

    <model_version>/
      manifest.json                   the description of the model, and the sha256 of every other file
      encoder.onnx  decoder.onnx  sampler.onnx      the graphs: states, deterministic lists, sampled lists
      explainer.onnx                  how much each event contributed to the state; absent for encoders without a state
      trie.npz  items.npz             the catalogue as tensors: token paths, item embeddings
      catalogue.npz                   the catalogue for people: ids, titles, categories
      tokenizer.json  tokenizer.npz   the fitted tokenizer
      itemcf.npz  popularity.npz      the scorers that answer when the model cannot

An artefact whose manifest names a `baseline` has no graphs: it serves the lists of that scorer.

A writer fills a temporary folder and renames it, so a reader sees all of it or nothing. Nothing is pickled. Arrays of
many items are mapped (`service.artifact.arrays`): their pages are read when they are touched, once for all processes.
An artefact in use may be deleted or replaced by a rename, but must not be written to in place. Reading needs neither
torch nor onnxruntime.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.arrays import map_arrays
from service.artifact.catalogue import Catalogue
from service.artifact.features import ContextVocabulary, Vocabulary
from service.artifact.item_cf import ItemCF
from service.artifact.popularity import Popularity
from service.artifact.trie import Trie

FORMAT = "gpt4rec-artifact"
FORMAT_VERSION = 3
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
    "itemcf.npz",
    "popularity.npz",
)
# An artefact that serves a scorer instead of a network lacks these files.
GRAPHS = ("encoder.onnx", "decoder.onnx", "sampler.onnx")
EXPLAINER = "explainer.onnx"
# Files that may be absent; if the manifest names them, they are checked like the others.
OPTIONAL = (EXPLAINER,)
REQUIRED: dict[str, type | tuple[type, ...]] = {
    "model_version": str,
    "network": dict,
    "context": dict,
    "has_time": bool,
    "dtype": str,
    "blend": (int, float),
    "files": dict,
    "streaming": bool,
    "receptive_field": int,
}
# Entries of the manifest's "network" that the engine is built from.
NETWORK_KEYS = ("n_items", "code_sizes", "n_slots", "d_model", "layers", "heads", "window", "d_head", "state_dtype")
# Entries of the manifest that are part of the model version.
CONTENT = ("network", "context", "has_time", "dtype", "blend")
_OTHER_FILE = "is not the file that was exported (checksums differ); export the model again"
_UNREADABLE = (ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, zipfile.BadZipFile)


class ArtifactFileError(ValueError):
    """The folder is not an artefact that this version can serve; the message names the file and the reason."""


def digest(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A verified artefact, whose parts are read on first use."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str, *, checksums: bool = True) -> Artifact:
        """Reads and verifies an artefact.

        Args:
            path: An artefact, or a folder of artefacts whose file `latest` names one.
            checksums: Whether to verify the content of the files, which takes a pass over all bytes. Without it only
                sizes and structure are verified, which suffices for a folder that was verified before.

        Raises:
            ArtifactFileError: A file is missing or differs from its checksum, the parts do not fit each other, or the
                format is another one.
        """
        folder = resolve(Path(path))
        manifest = glance(folder)
        if checksums:
            _verify(folder, manifest)
        artifact = cls(folder, manifest)
        artifact._check()
        return artifact

    @property
    def model_version(self) -> str:
        """Name and digest of the model: the same for two artefacts only if they serve the same lists."""
        return str(self.manifest["model_version"])

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's configuration, as `model.network.config.NetworkConfig` writes it."""
        network: Mapping[str, Any] = self.manifest["network"]
        return network

    @property
    def levels(self) -> int:
        """Number of the trie's levels."""
        return len(self.network["code_sizes"])

    @property
    def receptive_field(self) -> int:
        """Number of newest events of a history that can affect the hidden state."""
        return int(self.manifest["receptive_field"])

    @property
    def baseline(self) -> Mapping[str, Any] | None:
        """Name and parameters of the scorer that is served instead of a network; None if there is a network."""
        baseline: Mapping[str, Any] | None = self.manifest.get("baseline")
        return baseline

    @property
    def streaming(self) -> bool:
        """Whether the encoder carries a state from event to event; if not, it encodes whole histories."""
        return bool(self.manifest["streaming"])

    @property
    def explains(self) -> bool:
        """Whether the artefact can attribute a list to the events of the history."""
        return EXPLAINER in self.manifest["files"]

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items with their ids, titles and facets."""
        return Catalogue.load(self.folder / "catalogue.npz")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The items, context values and event types that the model knows."""
        context = ContextVocabulary.from_json(self.manifest["context"])
        exported = self.catalogue.n_exported
        n_types = int(self.network["n_types"])
        return Vocabulary(self.catalogue.index, context, bool(self.manifest["has_time"]), exported, n_types=n_types)

    @cached_property
    def trie(self) -> Trie:
        """The items by their tokens."""
        return Trie.load(self.folder / "trie.npz")

    @cached_property
    def item_table(self) -> npt.NDArray[np.float32]:
        """[N + 2, d] item embeddings, then the unknown item and the start token; later items follow after those."""
        table: npt.NDArray[np.float32] = map_arrays(self.folder / "items.npz")["item_table"]
        if table.dtype != np.float32 or table.ndim != 2:
            raise ValueError("the item table is not float32 [items, d]")
        return table

    @cached_property
    def item_cf(self) -> ItemCF:
        """The item-CF scorer, the first fallback."""
        return ItemCF.load(self.folder / "itemcf.npz", check_values=False)

    @cached_property
    def popularity(self) -> Popularity:
        """The popularity scorer, the last fallback."""
        return Popularity.load(self.folder / "popularity.npz", check_values=False)

    def updated(self, catalogue: Catalogue, trie: Trie, item_table: npt.NDArray[np.float32]) -> Artifact:
        """Returns the same model over a catalogue that has changed since the export."""
        other = Artifact(self.folder, self.manifest)
        vocabulary = replace(self.vocabulary, item_index=catalogue.index, rows=len(item_table))
        for name, part in (
            ("catalogue", catalogue), ("trie", trie), ("item_table", item_table), ("vocabulary", vocabulary),
            ("item_cf", self.item_cf), ("popularity", self.popularity),
        ):  # fmt: skip
            other.__dict__[name] = part  # where `cached_property` keeps its value
        return other

    def _check(self) -> None:
        """Verifies that the parts fit each other: a swapped file may have the checksum that a wrong manifest names."""
        readers: dict[str, Callable[[], int]] = {
            "catalogue.npz": lambda: len(self.catalogue),
            "trie.npz": lambda: self.trie.n_items,
            "items.npz": lambda: len(self.item_table) - 2,
            "itemcf.npz": lambda: len(self.item_cf.neighbour),
            "popularity.npz": lambda: len(self.popularity.share),
            MANIFEST: self._n_items,
        }
        sizes = {}
        for name, read in readers.items():
            try:
                sizes[name] = read()
            except _UNREADABLE as error:
                raise ArtifactFileError(f"{self.folder}: {name} cannot be used: {error!r}") from error
        if len(set(sizes.values())) != 1:
            raise ArtifactFileError(f"{self.folder}: the parts disagree on the number of items: {sizes}")
        if self.trie.levels != self.levels or self.item_table.shape[1] != self.network["d_model"]:
            raise ArtifactFileError(f"{self.folder}: trie.npz or items.npz does not fit the network")

    def _n_items(self) -> int:
        """Returns the manifest's number of items. Raises ValueError if it lacks something that the engine needs."""
        missing = [key for key in NETWORK_KEYS if key not in self.network]
        if missing:
            raise ValueError(f"network lacks {', '.join(missing)}")
        if len(self.vocabulary.context.slots) != self.network["n_slots"]:
            raise ValueError("the context vocabulary does not fit the network")
        return int(self.network["n_items"])


def glance(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an artefact's folder, without reading the content of the other files.

    Raises:
        ArtifactFileError: A file is missing or has the wrong size, or the manifest cannot be used.
    """
    manifest = _read_manifest(folder)
    for name in _listed(manifest):
        expected = manifest["files"].get(name)
        file = folder / name
        if not isinstance(expected, dict) or not file.is_file():
            raise ArtifactFileError(f"{folder}: {name} is missing; export the model again")
        if file.stat().st_size != expected.get("bytes"):
            raise ArtifactFileError(f"{folder}: {name} {_OTHER_FILE}")
    return manifest


def _verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ArtifactFileError for the first file whose content differs from its checksum.

    Hashing releases the interpreter's lock, so large files are read in parallel.
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
    """Returns the files that an artefact with this manifest must have."""
    return FILES if manifest.get("baseline") is None else tuple(name for name in FILES if name not in GRAPHS)


def resolve(path: Path) -> Path:
    """Returns the artefact folder that `path` is or points to.

    Raises:
        ArtifactFileError: There is none.
    """
    if (path / MANIFEST).is_file():
        return path
    pointer = path / LATEST
    if pointer.is_file():
        version = pointer.read_text("utf-8", errors="replace").strip()
        if version and Path(version).name == version and (path / version).is_dir():
            return path / version
        raise ArtifactFileError(f"{path}: {LATEST} names {version!r}, which does not exist; export the model again")
    raise ArtifactFileError(
        f"{path} is not an artefact: it contains neither {MANIFEST} nor {LATEST}; run `gpt4rec export`"
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
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
    return manifest
