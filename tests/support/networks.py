"""Small random networks and the artefact-free pieces of their graphs, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.graphs.decoder import write_decoder
from export.graphs.encoder import write_encoder
from export.graphs.explainer import write_explainer
from export.graphs.graph_writer import GraphDtype
from export.graphs.sampler import write_sampler
from model.network.config import SIZES, NetworkConfig
from model.network.gpt4rec import GPT4Rec
from service.artifact.array_types import IntArray
from service.artifact.features import EVENT_TYPES
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem


def random_codes(rng: np.random.Generator, n_items: int, sizes: Sequence[int]) -> IntArray:
    """Unique paths, unevenly spread: some nodes have many children, some have one."""
    total = int(np.prod(sizes))
    if total > 2**20:  # a weight for each path would take long
        return np.stack(np.unravel_index(rng.choice(total, n_items, replace=False), sizes), axis=1).astype(np.int64)
    weight = rng.exponential(size=total) ** 2
    flat = rng.choice(total, size=n_items, replace=False, p=weight / weight.sum())
    return np.stack(np.unravel_index(flat, sizes), axis=1).astype(np.int64)


def random_network(
    *,
    seed: int = 0,
    n_items: int = 40,
    sizes: Sequence[int] = (5, 4, 6),
    scale: float = 3.0,
    **overrides: Any,
) -> GPT4Rec:
    """A tiny network whose weights are scaled up, so that its distributions are far from uniform."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = NetworkConfig(
        n_items=n_items,
        code_sizes=tuple(sizes),
        n_types=len(EVENT_TYPES),
        n_context_rows=7,
        n_slots=3,
        **(SIZES["tiny"] | overrides),
    )
    model = GPT4Rec(config, torch.from_numpy(random_codes(rng, n_items, sizes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.05 * scale)
    return model.eval()


def weights_of(model: GPT4Rec) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def write_graphs(model: GPT4Rec, folder: Path, dtype: GraphDtype = "float32") -> None:
    weights = weights_of(model)
    write_encoder(model.config, weights, folder / "encoder.onnx", dtype)
    write_decoder(model.config, weights, folder / "decoder.onnx", dtype, dense=True)
    write_decoder(model.config, weights, folder / "beam_decoder.onnx", dtype, dense=False)
    write_decoder(model.config, weights, folder / "cell_decoder.onnx", dtype, cells=True)
    write_sampler(model.config, weights, folder / "cell_sampler.onnx", dtype, cells=True)
    write_sampler(model.config, weights, folder / "sampler.onnx", dtype, dense=True)
    write_sampler(model.config, weights, folder / "beam_sampler.onnx", dtype, dense=False)
    write_explainer(model.config, weights, folder / "explainer.onnx", dtype)


def random_catalogue(rng: np.random.Generator, n_items: int) -> Catalogue:
    return Catalogue.of(
        [
            CatalogueItem(
                f"i{index}",
                f"Item {index}",
                category=tuple(rng.choice(["a", "b", "c", "d"], size=rng.integers(1, 3), replace=False).tolist()),
                brand=str(rng.choice(["x", "y"])),
            )
            for index in range(n_items)
        ]
    )
