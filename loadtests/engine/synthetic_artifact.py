"""Artefacts of any size without training: random weights, codes distributed like those of a fitted semantic tokenizer.

Everything that decides speed is realistic: the levels and their sizes, how unevenly codes are used, the largest number
of children of a node, the sizes of all files. The recommendations are meaningless.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from export.artifact_writer import Parts, write
from export.graphs.graph_writer import GraphDtype
from export.publish import publish, staging
from model.network.config import SIZES, NetworkConfig
from model.network.gpt4rec import GPT4Rec
from model.signals import content, repeat, texts, transition_table, walk
from model.tokenizers.atomic import AtomicTokenizer
from model.tokenizers.tokenizer import MAX_BRANCHING, unique_last_tokens
from service.artifact.array_types import IntArray
from service.artifact.features import EVENT_TYPES, ContextVocabulary
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE, PATH, RankerWeights
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY, SignalPart

# Weights of an artefact without other signals than those that every one has.
OF_NETWORK = RankerWeights((ITEM_CF, POPULARITY), {DEFAULT_GROUP: {PATH: 0.25, DENSE: 0.75}})
NO_CONTEXT = ContextVocabulary()
CODES = (256, 256, 256)
NEIGHBOURS = 50
FUSED_NEIGHBOURS = 100  # of item-CF: what tuning chooses on most logs
# Signals that are the same for everybody: large values of theirs would leave the user's without effect.
COLUMNS = frozenset({POPULARITY, "trend", "cold"})
COLD_SHARE = 0.05
N_CATEGORIES = 400
N_BRANDS = 20_000
_CHUNK = 100_000


def synthetic_codes(rng: np.random.Generator, n_items: int, sizes: tuple[int, ...] = CODES) -> tuple[IntArray, int]:
    """Returns token paths [N, levels + 1] and the size of the last level, which makes paths unique.

    As after balanced residual k-means (`model.tokenizers.semantic`): under every node the popularity of codes follows a
    power law, cut off at twice the mean, and each node prefers other codes.
    """
    parent = np.zeros(n_items, np.int64)
    columns = []
    for size in sizes:
        share = 1.0 / np.arange(1, size + 1)
        for _ in range(50):
            share = np.minimum(share / share.sum(), 2.0 / size)
        rank = np.minimum(np.searchsorted(np.cumsum(share), rng.random(n_items) * share.sum()), size - 1)
        # A permutation of the codes for every node: an odd factor and a shift are one modulo a power of two.
        mixed = (parent * 2_654_435_761 + 12_345) & 0xFFFFFFFF
        token = (rank * (2 * (mixed % 127) + 1) + (mixed >> 8)) % size
        columns.append(token)
        parent = parent * size + token
    prefix = np.stack(columns, axis=1)
    # By one number a path, since rows of a million paths take long to compare.
    last = unique_last_tokens(parent[:, None])
    if last.shape[1] > 1:
        raise ValueError(f"{n_items} items do not fit into codes of {sizes}")
    return np.concatenate([prefix, last], axis=1), int(min(MAX_BRANCHING, max(8, 2 * (last.max() + 1))))


def synthetic_catalogue(rng: np.random.Generator, n_items: int) -> Catalogue:
    """Returns ten-character ids, titles, category paths of two levels and brands, unevenly used."""
    category = (rng.zipf(1.3, n_items) - 1) % N_CATEGORIES
    brand = (rng.zipf(1.2, n_items) - 1) % N_BRANDS
    paths = [(f"Top {i % 20}", f"Sub {i % 20}.{i}") for i in range(N_CATEGORIES)]
    return Catalogue.of(
        [
            CatalogueItem(f"B{i:09d}", f"Title of item {i}, as long as titles are", paths[category[i]], f"Brand {b}")
            for i, b in enumerate(brand.tolist())
        ]
    )


def synthetic_item_cf(rng: np.random.Generator, n_items: int, neighbours: int = NEIGHBOURS) -> ItemCF:
    """Returns random neighbours with falling similarities."""
    neighbours = min(neighbours, n_items - 1)
    step = rng.integers(1, n_items, (n_items, neighbours), dtype=np.int32)
    neighbour = (np.arange(n_items, dtype=np.int32)[:, None] + step) % np.int32(n_items)
    similarity = np.empty(neighbour.shape, np.float32)
    for start in range(0, n_items, _CHUNK):
        similarity[start : start + _CHUNK] = -np.sort(
            -rng.random((min(_CHUNK, n_items - start), neighbours), np.float32)
        )
    return ItemCF(neighbour.astype(np.int32), similarity, decay=0.9)


def synthetic_signals(rng: np.random.Generator, n_items: int) -> dict[str, SignalPart]:
    """Returns random signals of every name but item-CF, popularity and given vectors, as large as fitted ones.

    Texts are left out where the catalogue is too large for them. Neighbours are all different, so the signals of a user
    speak for more items than those of a real one, whose neighbours overlap.
    """
    modules = {"transitions": transition_table, "walk": walk, "content": content}
    modules |= {"texts": texts} if n_items <= texts.ITEMS_MAX else {}
    tables = {
        name: _neighbours(rng, n_items, module.NEIGHBOURS, module.DECAY, module.HORIZON)
        for name, module in modules.items()
    }
    cold = ItemColumn((rng.random(n_items) < COLD_SHARE).astype(np.float32))
    trend = ItemColumn(rng.standard_normal(n_items).astype(np.float32))
    rates = (0.01 + 0.98 * rng.random(n_items)).astype(np.float32)
    own = {"repeat": OwnItems(n_items, repeat.DECAY), "repurchase": OwnItems(n_items, repeat.DECAY, rates)}
    return {**tables, **own, "trend": trend, "cold": cold}


def _neighbours(rng: np.random.Generator, n_items: int, most: int, decay: float, horizon: int) -> NeighbourTable:
    most = min(most, n_items - 1)
    neighbour = rng.integers(1, n_items, (n_items, most), dtype=np.int32)
    neighbour += np.arange(n_items, dtype=np.int32)[:, None]
    neighbour %= np.int32(n_items)
    similarity = np.tile((1 / np.arange(1, most + 1)).astype(np.float32), (n_items, 1))
    return NeighbourTable(neighbour, similarity, decay, horizon, check_values=False)


def fused_weights(signals: Iterable[str]) -> RankerWeights:
    """Returns weights in which every signal counts, with and without the network."""
    beside = {name: 0.1 if name in COLUMNS else 1.0 for name in signals}
    return RankerWeights(tuple(beside), {DEFAULT_GROUP: {PATH: 0.2, DENSE: 0.4, **beside}}, beside)


def synthetic_network(
    n_items: int,
    codes: IntArray,
    last_size: int,
    *,
    size: str = "small",
    seed: int = 0,
    context: ContextVocabulary = NO_CONTEXT,
) -> GPT4Rec:
    """Returns a network of a size in `model.network.config.SIZES`; its distributions are far from uniform."""
    torch.manual_seed(seed)
    config = NetworkConfig(
        n_items=n_items, code_sizes=(*CODES, last_size), n_types=len(EVENT_TYPES),
        n_context_rows=context.n_rows, n_slots=len(context.slots), **SIZES[size],
    )  # fmt: skip
    model = GPT4Rec(config, torch.from_numpy(codes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and name != "item.weight":
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def write_synthetic(
    root: Path,
    n_items: int,
    *,
    size: str = "small",
    seed: int = 0,
    dense: bool | None = False,
    fused: bool = False,
    dtype: GraphDtype = "float32",
    context: ContextVocabulary = NO_CONTEXT,
) -> Path:
    """Writes and publishes an artefact of `n_items` under `root` with the exporter's own code; returns its folder.

    `fused` adds all signals, each with a weight; the artefact is called fused-N then, not synthetic-N.

    `dense` as in `export.artifact_writer.Parts`. By default no size is scored as a whole, so that sizes compare.
    `context` is what lists depend on beside the history: features, scenes, and the gap to now.
    """
    rng = np.random.default_rng(seed)
    codes, last_size = synthetic_codes(rng, n_items)
    model = synthetic_network(n_items, codes, last_size, size=size, seed=seed, context=context)
    shares = rng.zipf(1.2, n_items).clip(max=10**6).astype(np.float64)
    signals = synthetic_signals(rng, n_items) if fused else {}
    parts = Parts(
        name=f"{'fused' if fused else 'synthetic'}-{n_items}",
        model=model,
        tokenizer=AtomicTokenizer(codes, model.config.code_sizes),
        catalogue=synthetic_catalogue(rng, n_items),
        context=context,
        item_cf=synthetic_item_cf(rng, n_items, FUSED_NEIGHBOURS if fused else NEIGHBOURS),
        popularity=Popularity.of((shares / shares.sum()).astype(np.float32)),
        signals=signals,
        ranker=fused_weights((ITEM_CF, POPULARITY, *signals)) if fused else OF_NETWORK,
        dense=dense,
    )
    with staging(root) as folder:
        write(parts, folder, dtype)
        return publish(folder, root)
