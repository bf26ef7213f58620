"""The artefact: everything the service needs of a trained model, in one folder of checked files.

    <model_version>/
      manifest.json                   the description of the model, and the sha256 of every other file
      encoder.onnx  decoder.onnx  sampler.onnx      the graphs: states, deterministic lists, sampled lists
      explainer.onnx                  how much each event contributed to the state; absent from older artefacts
      cells.npz                       items whose paths begin alike, and what stands for them; only where graphs read it
      trie.npz  items.npz             the catalogue as tensors: token paths, item embeddings, and attributes of items
                                      where the encoder reads them
      catalogue.npz                   the catalogue for people: ids, titles, categories
      tokenizer.json  tokenizer.npz   the fitted tokenizer
      queries.npz                     the queries that the network has vectors of, where it has any
      signal_<name>.npz               what else than the network speaks for an item: item-CF and popularity, which also
                                      answer when the model cannot, and the signals that the manifest names
      together.npz                    what is taken together in one basket; only where the log has such baskets
      order.npz                       what the order of a list is worth; only where an order was learned and is better
      signature.json                  who signed the manifest, where somebody did (`service.artifact.signature`)

An artefact whose manifest names a `baseline` has no graphs: it serves the lists of that scorer.

A writer fills a temporary folder and renames it, so a reader sees all of it or nothing. Nothing is pickled. Arrays of
many items are mapped (`service.artifact.arrays`): their pages are read when they are touched, once for all processes.
An artefact in use may be deleted or replaced by a rename, but must not be written to in place. Reading needs neither
torch nor onnxruntime.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import IntArray
from service.artifact.arrays import map_arrays
from service.artifact.features import ContextVocabulary, Vocabulary
from service.artifact.graphs.cells import CELLS_FILE, Cells
from service.artifact.graphs.encoder_version import EncoderVersion
from service.artifact.graphs.run_sizes import ENTRY as RUN_SIZES
from service.artifact.graphs.run_sizes import RunSizes
from service.artifact.graphs.state_layout import StateLayout, layout_of
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.item_attributes import AttributeVocabulary, attribute_names
from service.artifact.manifest import (
    EXPLAINER,
    MANIFEST,
    TOGETHER_FILE,
    ArtifactFileError,
    encoder_version_of,
    read_manifest,
    repeats_of,
    resolve,
    verify_checksums,
)
from service.artifact.query_text import KNOWN_QUERIES, KnownQueries
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.order_weights import ORDER_FILE, OrderWeights
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY, SignalPart, load_signal, signal_file
from service.artifact.signature import TrustedKeys
from service.artifact.trie import Trie

# Entries of the manifest's "network" that the engine is built from.
NETWORK_KEYS = ("n_items", "code_sizes", "n_slots", "d_model", "layers", "heads", "window", "d_head", "state_dtype")
_UNREADABLE = (ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Artifact:
    """A verified artefact, whose parts are read on first use."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str, *, checksums: bool = True, trusted: TrustedKeys | None = None) -> Artifact:
        """Reads and verifies an artefact.

        Args:
            path: An artefact, or a folder of artefacts whose file `latest` names one.
            checksums: Whether to verify the content of the files, which takes a pass over all bytes. Without it only
                sizes and structure are verified, which suffices for a folder that was verified before.
            trusted: Keys one of which must have signed it; None asks for no signature.

        Raises:
            ArtifactFileError: A file is missing or differs from its checksum, the parts do not fit each other, the
                format is another one, or the signature that is asked for is missing or wrong.
            KeyFileError: Signatures cannot be verified here.
        """
        folder = resolve(Path(path))
        manifest = read_manifest(folder)
        if trusted is not None:
            trusted.verify(folder, manifest)
        if checksums:
            verify_checksums(folder, manifest)
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
    def run_sizes(self) -> RunSizes:
        """Which runs of the decoder are narrower than policies plan them."""
        return RunSizes.from_json(self.manifest.get(RUN_SIZES))

    @property
    def baseline(self) -> Mapping[str, Any] | None:
        """Name and parameters of the scorer that is served instead of a network; None if there is a network."""
        baseline: Mapping[str, Any] | None = self.manifest.get("baseline")
        return baseline

    @property
    def streaming(self) -> bool:
        """Whether the encoder carries a state from event to event; if not, it encodes whole histories."""
        return bool(self.manifest["streaming"])

    @cached_property
    def state_layout(self) -> StateLayout:
        """The arrays of the encoder's states."""
        return layout_of(self.manifest)

    @property
    def repeats(self) -> bool:
        """Whether people take the same items again, so that lists hold the history unless a request says otherwise."""
        return repeats_of(self.manifest)

    @property
    def explains(self) -> bool:
        """Whether the artefact can attribute a list to the events of the history."""
        return EXPLAINER in self.manifest["files"]

    @cached_property
    def encoder_version(self) -> EncoderVersion:
        """What states depend on; two artefacts with the same version share them."""
        return encoder_version_of(self.manifest)

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
        buckets = int(self.network.get("query_buckets", 0))
        return Vocabulary(
            self.catalogue.index, context, bool(self.manifest["has_time"]), exported, n_types=n_types,
            query_buckets=buckets, known_queries=self.known_queries,
            reads_sessions=bool(self.network.get("session_ids", False)),
        )  # fmt: skip

    @cached_property
    def known_queries(self) -> KnownQueries | None:
        """The queries that the network has vectors of; None if it has none."""
        n = int(self.network.get("n_known_queries", 0))
        return KnownQueries.load(self.folder, n) if n else None

    @cached_property
    def trie(self) -> Trie:
        """The items by their tokens."""
        return Trie.load(self.folder / "trie.npz")

    @cached_property
    def cells(self) -> Cells | None:
        """The cells of the catalogue; None if the graphs do not read any."""
        return Cells.load(self.folder / CELLS_FILE) if CELLS_FILE in self.manifest["files"] else None

    @cached_property
    def item_table(self) -> npt.NDArray[np.float32]:
        """[N + 2, d] item embeddings, then the unknown item and the start token; later items follow after those."""
        table: npt.NDArray[np.float32] = map_arrays(self.folder / "items.npz")["item_table"]
        if table.dtype != np.float32 or table.ndim != 2:
            raise ValueError("the item table is not float32 [items, d]")
        return table

    @cached_property
    def attributes(self) -> AttributeVocabulary | None:
        """The attributes of items that the encoder knows; None if it reads none."""
        return self._attributes[0]

    @cached_property
    def item_attributes(self) -> IntArray | None:
        """[rows, slots] attributes beside each row of the item table; None if the encoder reads none."""
        return self._attributes[1]

    @cached_property
    def _attributes(self) -> tuple[AttributeVocabulary | None, IntArray | None]:
        slots = int(self.network.get("attribute_slots", 0))
        if not slots:
            return None, None
        return AttributeVocabulary.from_arrays(map_arrays(self.folder / "items.npz"), slots)

    @cached_property
    def item_cf(self) -> ItemCF:
        """The item-CF scorer, the first fallback."""
        return ItemCF.load(self.folder / signal_file(ITEM_CF), check_values=False)

    @cached_property
    def popularity(self) -> Popularity:
        """The popularity scorer, the last fallback."""
        return Popularity.load(self.folder / signal_file(POPULARITY), check_values=False)

    @cached_property
    def ranker(self) -> RankerWeights:
        """The signals and their weights."""
        return RankerWeights.from_json(self.manifest["ranker"])

    @cached_property
    def signals(self) -> Mapping[str, SignalPart]:
        """What each signal was fitted to, by name."""
        own: dict[str, SignalPart] = {ITEM_CF: self.item_cf, POPULARITY: self.popularity}
        return {name: own.get(name) or self._signal(name) for name in self.ranker.signals}

    @cached_property
    def order(self) -> OrderWeights | None:
        """What the order of a list is worth; None where lists are by score."""
        return OrderWeights.load(self.folder / ORDER_FILE) if ORDER_FILE in self.manifest["files"] else None

    @cached_property
    def together(self) -> NeighbourTable | None:
        """What is taken together in one basket; None where the log has no such baskets, or the export is older."""
        if TOGETHER_FILE not in self.manifest["files"]:
            return None
        return NeighbourTable.load(self.folder / TOGETHER_FILE, check_values=False)

    def _signal(self, name: str) -> SignalPart:
        return load_signal(self.folder / signal_file(name))

    def updated(
        self, catalogue: Catalogue, trie: Trie, item_table: npt.NDArray[np.float32], cells: Cells | None = None
    ) -> Artifact:
        """Returns the same model over a catalogue that has changed since the export.

        Args:
            catalogue: The catalogue.
            trie: Its trie.
            item_table: Its item vectors.
            cells: The cells of both, from `cells_over`; None if the graphs do not read any.
        """
        other = Artifact(self.folder, self.manifest)
        attributes = self._with_new_items(catalogue, len(item_table))
        vocabulary = replace(self.vocabulary, item_index=catalogue.index, rows=len(item_table))
        for name, part in (
            ("catalogue", catalogue), ("trie", trie), ("item_table", item_table), ("vocabulary", vocabulary),
            ("cells", cells),
            ("item_cf", self.item_cf), ("popularity", self.popularity), ("ranker", self.ranker),
            ("signals", self.signals), ("attributes", self.attributes), ("item_attributes", attributes),
            ("order", self.order), ("together", self.together),
        ):  # fmt: skip
            other.__dict__[name] = part  # where `cached_property` keeps its value
        return other

    def cells_over(self, trie: Trie, item_table: npt.NDArray[np.float32]) -> Cells | None:
        """Returns the cells of a trie and a table that have changed; takes long if the catalogue is large."""
        return self.cells if self.cells is None or trie is self.trie else self.cells.over(trie, item_table)

    def _with_new_items(self, catalogue: Catalogue, rows: int) -> IntArray | None:
        """Returns the attributes [rows, slots] of an item table with new items; prices of those are not known."""
        vocabulary, exported = self.attributes, self.item_attributes
        if vocabulary is None or exported is None:
            return None
        exported = exported[: catalogue.first_new]
        new = catalogue.more[: rows - len(exported)]
        names = [attribute_names(item.category, item.brand, item.attributes) for item in new]
        return np.concatenate([exported, vocabulary.table(names)])

    def _check(self) -> None:
        """Verifies that the parts fit each other: a swapped file may have the checksum that a wrong manifest names."""
        readers: dict[str, Callable[[], int]] = {
            "catalogue.npz": lambda: len(self.catalogue),
            "trie.npz": lambda: self.trie.n_items,
            "items.npz": self._table_items,
            signal_file(ITEM_CF): lambda: self.item_cf.n_items,
            signal_file(POPULARITY): lambda: self.popularity.n_items,
            KNOWN_QUERIES: self._known_items,
            MANIFEST: self._n_items,
        }
        if TOGETHER_FILE in self.manifest["files"]:
            readers[TOGETHER_FILE] = self._together_items
        if CELLS_FILE in self.manifest["files"]:
            readers[CELLS_FILE] = self._cell_items
        others = [name for name in self.ranker.signals if name not in (ITEM_CF, POPULARITY)]
        readers |= {signal_file(name): partial(self._signal_items, name) for name in others}
        if ORDER_FILE in self.manifest["files"]:
            readers[ORDER_FILE] = lambda: OrderWeights.load(self.folder / ORDER_FILE).n_items
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
        if self.item_attributes is not None and len(self.item_attributes) != len(self.item_table):
            raise ArtifactFileError(f"{self.folder}: items.npz has attributes of other items than the item table")

    def _table_items(self) -> int:
        """Returns the number of items of the item table. Raises ValueError or KeyError if attributes are damaged."""
        _ = self.item_attributes
        return len(self.item_table) - 2

    def _known_items(self) -> int:
        """Returns the number of items. Raises ValueError, KeyError or OSError if the known queries are damaged."""
        _ = self.known_queries
        return len(self.catalogue)

    def _cell_items(self) -> int:
        cells = self.cells
        return 0 if cells is None else int(cells.first_leaf[-1])

    def _together_items(self) -> int:
        return self.item_cf.n_items if self.together is None else self.together.n_items

    def _signal_items(self, name: str) -> int:
        return self._signal(name).n_items

    def _n_items(self) -> int:
        """Returns the manifest's number of items. Raises ValueError if it lacks something that the engine needs."""
        missing = [key for key in NETWORK_KEYS if key not in self.network]
        if missing:
            raise ValueError(f"network lacks {', '.join(missing)}")
        if len(self.vocabulary.context.slots) != self.network["n_slots"]:
            raise ValueError("the context vocabulary does not fit the network")
        return int(self.network["n_items"])
