"""Artefacts of any size whose item vectors are like those of a trained model.

A random table would be the wrong catalogue to look for neighbours in: vectors of a trained one are clustered, its codes
say where they lie, and popular items have longer ones. So a trained table is enlarged, by this law:

- The trained items stay as they are. Each further item takes the first tokens of a trained item drawn by chance, all
  but the last; so cells keep their shares of the catalogue, and none is new.
- Its vector is the mean of the trained vectors of that cell, plus a residual: the difference between another trained
  item, drawn among those with the same first token, and the mean of its cell, times √(n / (n − 1)) for a cell of n
  items. Cells of one item have no residual to give.
- Last tokens are given out anew within each cell.

A catalogue smaller than the trained one is a sample of its items. The network is the trained one; only the rows of last
tokens that it does not have are copies of those it has. So the queries of real histories stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from export.artifact_writer import Parts
from loadtests.engine.synthetic_artifact import OF_NETWORK, synthetic_item_cf
from model.network.gpt4rec import GPT4Rec
from model.tokenizers.atomic import AtomicTokenizer
from model.tokenizers.tokenizer import unique_last_tokens
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import ContextVocabulary
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.popularity import Popularity

NEIGHBOURS = 4  # of item-CF, which plays no part


@dataclass(frozen=True, eq=False)
class Enlarged:
    """A catalogue: token paths [n, K], and item vectors [n, d]."""

    codes: IntArray
    vectors: FloatArray


def enlarge(codes: IntArray, table: FloatArray, n_items: int, rng: np.random.Generator) -> Enlarged:
    """Returns a catalogue of `n_items`, from the codes [N, K] and vectors [N, d] of a trained one."""
    known = len(codes)
    if n_items <= known:
        chosen = np.sort(rng.permutation(known)[:n_items])
        return _renumbered(codes[chosen, :-1], table[chosen])
    parent = rng.integers(0, known, n_items - known)
    _, cell, size = np.unique(codes[:, :-1], axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)
    total = np.zeros((len(size), table.shape[1]), np.float64)
    np.add.at(total, cell, table)
    mean = (total / size[:, None]).astype(np.float32)
    donor = _donors(codes[:, 0], size[cell], parent, rng)
    stretch = np.sqrt(size[cell[donor]] / (size[cell[donor]] - 1.0)).astype(np.float32)
    more = mean[cell[parent]] + (table[donor] - mean[cell[donor]]) * stretch[:, None]
    return _renumbered(np.concatenate([codes, codes[parent]])[:, :-1], np.concatenate([table, more]))


def _donors(first: IntArray, size: IntArray, parent: IntArray, rng: np.random.Generator) -> IntArray:
    """Returns an item for each parent to take the residual of: of the same first token, from a cell of several items.

    Where a token has no such item, any item of a cell of several is drawn.
    """
    several = np.flatnonzero(size > 1)
    order = several[np.argsort(first[several], kind="stable")]
    low = np.searchsorted(first[order], first[parent], side="left")
    high = np.searchsorted(first[order], first[parent], side="right")
    none = low == high
    low, high = np.where(none, 0, low), np.where(none, len(order), high)
    drawn: IntArray = order[low + (rng.random(len(parent)) * (high - low)).astype(np.int64)]
    return drawn


def _renumbered(prefix: IntArray, vectors: FloatArray) -> Enlarged:
    last = unique_last_tokens(prefix)
    if last.shape[1] > 1:
        raise ValueError(f"{len(prefix)} items do not fit into the cells of the trained model")
    return Enlarged(np.concatenate([prefix, last], axis=1), np.ascontiguousarray(vectors, np.float32))


def enlarged_network(trained: GPT4Rec, catalogue: Enlarged) -> GPT4Rec:
    """Returns the trained network over another catalogue."""
    last = int(catalogue.codes[:, -1].max()) + 1
    sizes = (*trained.config.code_sizes[:-1], max(8, last))
    n_items = len(catalogue.codes)
    model = GPT4Rec(replace(trained.config, n_items=n_items, code_sizes=sizes), torch.from_numpy(catalogue.codes))
    state, old = model.state_dict(), trained.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if name in ("codes", "item.weight"):
                continue
            if tensor.shape == old[name].shape:
                tensor.copy_(old[name])
            else:  # rows of last tokens
                tensor.copy_(old[name][torch.arange(len(tensor)) % len(old[name])])
        state["item.weight"][-2:] = old["item.weight"][-2:]
        model.set_item_vectors(torch.arange(n_items), torch.from_numpy(catalogue.vectors))
    return model.eval()


def filter_names(n_items: int, left: Sequence[float], rng: np.random.Generator) -> list[str]:
    """Returns the brand of each item: so many per cent of the items, drawn by chance, have the brand `left …`."""
    brand = np.full(n_items, "other", dtype="U16")
    free = rng.permutation(n_items)
    for share in left:
        taken, free = np.split(free, [round(n_items * share / 100)])
        brand[taken] = f"left {share:g}"
    return [str(name) for name in brand]


def enlarged_parts(
    trained: GPT4Rec, context: ContextVocabulary, n_items: int, left: Sequence[float], *, seed: int = 0
) -> Parts:
    """Returns the parts of an artefact, whose graphs have the beam alone.

    Args:
        trained: The trained network.
        context: Its context values.
        n_items: Number of items.
        left: Percentages of the catalogue that the brands `left …` have; the category of an item is its first token.
        seed: Of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    table = trained.item_table()[:-2].detach().numpy()
    catalogue = enlarge(trained.codes.numpy(), table, n_items, rng)
    model = enlarged_network(trained, catalogue)
    first, brand = catalogue.codes[:, 0].tolist(), filter_names(n_items, left, rng)
    items = [CatalogueItem(f"B{i:09d}", f"Item {i}", (f"Top {first[i]}",), name) for i, name in enumerate(brand)]
    return Parts(
        name=f"enlarged-{n_items}",
        model=model,
        tokenizer=AtomicTokenizer(catalogue.codes, model.config.code_sizes),
        catalogue=Catalogue.of(items),
        context=context,
        item_cf=synthetic_item_cf(rng, n_items, NEIGHBOURS),
        popularity=Popularity.of(np.full(n_items, 1.0 / n_items, np.float32)),
        ranker=OF_NETWORK,
        dense=False,
    )
