"""The weights of a GPT-2 in a local folder of Hugging Face's layout, as the start of the encoder `gpt2rec`.

    FOLDER/config.json          the shape
    FOLDER/model.safetensors    the weights; or model.safetensors.index.json and the files that it names

The files are read as they are: no other package is needed, and nothing is downloaded or unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.errors import RunError
from model.network.encoders.gpt2rec import GPT2Rec
from model.network.gpt4rec import GPT4Rec

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Fields of config.json that change the computation, and the values that the encoder computes with.
_AS_HERE: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_FIX = "give a folder with config.json and model.safetensors of a GPT-2, as `save_pretrained` of transformers writes it"


@dataclass(frozen=True)
class GPT2Folder:
    """A GPT-2 in a folder.

    Attributes:
        folder: The folder.
        width: Width of hidden states, `n_embd`.
        layers: Number of blocks.
        heads: Attention heads of each.
        d_ff: Width of the feed-forward layers.
        positions: Number of learned positions.
    """

    folder: Path
    width: int
    layers: int
    heads: int
    d_ff: int
    positions: int

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads and checks the shape.

        Raises:
            RunError: The folder holds no GPT-2 of a kind that the encoder computes.
        """
        where = str(folder / "config.json")
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            width, layers, heads = (int(config[name]) for name in ("n_embd", "n_layer", "n_head"))
            found = cls(
                folder, width, layers, heads, int(config.get("n_inner") or 4 * width), int(config["n_positions"])
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"this is not the folder of a GPT-2: {error}", where=where, fix=_FIX) from error
        for name, allowed in _AS_HERE.items():
            if config.get(name, allowed[0]) not in allowed:
                raise RunError(
                    f"{name} is {config[name]!r}, and the encoder gpt2rec computes with {allowed[0]!r}",
                    where=where,
                    fix="give a GPT-2 of the usual kind",
                )
        if min(width, layers, heads, found.d_ff, found.positions) < 1 or width % heads:
            raise RunError(f"{width} dimensions do not part into {heads} heads", where=where, fix=_FIX)
        return found

    def network(self) -> dict[str, int]:
        """Returns the fields of a network that follow from the shape; `layers` may be fewer."""
        d_head = self.width // self.heads
        return {
            "d_model": self.width, "heads": self.heads, "d_head": d_head, "d_ff": self.d_ff, "layers": self.layers,
        }  # fmt: skip

    @torch.no_grad()
    def start(self, model: GPT4Rec) -> None:
        """Gives a network's encoder the weights: its first blocks, positions and last norm.

        Embedded events then get the spread that words had, because GPT-2 adds positions to them before any norm.

        Args:
            model: A network whose encoder is a `GPT2Rec` of this shape.

        Raises:
            RunError: A tensor is missing, damaged or has another shape.
        """
        encoder = model.encoder
        if not isinstance(encoder, GPT2Rec):
            raise TypeError(f"the encoder is a {type(encoder).__name__}")
        tensors = _Tensors(self.folder)
        words = tensors.read("wte.weight", None)
        encoder.position.weight.copy_(
            tensors.read("wpe.weight", (self.positions, self.width))[: len(encoder.position.weight)]
        )
        for number, block in enumerate(encoder.blocks):
            for name, tensor in self._block(tensors, f"h.{number}").items():
                block.get_parameter(name).copy_(tensor)
        for part in ("weight", "bias"):
            encoder.norm.get_parameter(part).copy_(tensors.read(f"ln_f.{part}", (self.width,)))
        encoder.adapt.weight.mul_(words.std() / model.item_table()[:-2].std())

    def _block(self, tensors: _Tensors, name: str) -> dict[str, Tensor]:
        """Returns the parameters of a `PreNormBlock`. GPT-2 stores its linear layers as [in, out]."""
        d, ff = self.width, self.d_ff
        out: dict[str, Tensor] = {}
        for theirs, ours in (("ln_1", "norm_attention"), ("ln_2", "norm_ff")):
            for part in ("weight", "bias"):
                out[f"{ours}.{part}"] = tensors.read(f"{name}.{theirs}.{part}", (d,))
        weight = tensors.read(f"{name}.attn.c_attn.weight", (d, 3 * d)).chunk(3, dim=1)
        bias = tensors.read(f"{name}.attn.c_attn.bias", (3 * d,)).chunk(3)
        for part, w, b in zip(("query", "key", "value"), weight, bias, strict=True):
            out[f"attention.{part}.weight"], out[f"attention.{part}.bias"] = w.T, b
        for theirs, ours, rows, columns in (
            ("attn.c_proj", "attention.out", d, d),
            ("mlp.c_fc", "up", d, ff),
            ("mlp.c_proj", "down", ff, d),
        ):
            out[f"{ours}.weight"] = tensors.read(f"{name}.{theirs}.weight", (rows, columns)).T
            out[f"{ours}.bias"] = tensors.read(f"{name}.{theirs}.bias", (columns,))
        return out


class _Tensors:
    """The tensors of a folder by name, with or without the prefix of a language model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / INDEX).exists():
            self._file_of = self._index()
        elif (folder / WEIGHTS).exists():
            self._file_of = dict.fromkeys(self._names(folder / WEIGHTS), folder / WEIGHTS)
        else:
            raise RunError(
                f"there is no {WEIGHTS}",
                where=str(folder),
                fix="pickled weights (pytorch_model.bin) are not read: save them with transformers as safetensors",
            )

    def read(self, name: str, shape: tuple[int, ...] | None) -> Tensor:
        """Returns a tensor in float32; `shape` None checks none."""
        stored = next((stored for stored in (name, f"transformer.{name}") if stored in self._file_of), None)
        if stored is None:
            raise RunError(f"the weights lack {name}", where=str(self.folder), fix=_FIX)
        file = self._file_of[stored]
        try:
            with safe_open(file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise RunError(f"the weights cannot be read: {error}", where=str(file), fix="copy them again") from error
        if shape is not None and tuple(tensor.shape) != shape:
            raise RunError(
                f"{name} has the shape {tuple(tensor.shape)}, but config.json says {shape}",
                where=str(file),
                fix="give the config.json that belongs to the weights",
            )
        return tensor.to(torch.float32)

    def _names(self, file: Path) -> list[str]:
        try:
            with safe_open(file, framework="pt") as opened:
                return list(opened.keys())
        except (OSError, SafetensorError) as error:
            raise RunError(f"the weights cannot be read: {error}", where=str(file), fix="copy them again") from error

    def _index(self) -> dict[str, Path]:
        try:
            named = json.loads((self.folder / INDEX).read_text("utf-8"))["weight_map"]
            # Names of files in the folder, never paths out of it.
            return {str(name): self.folder / Path(file).name for name, file in named.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"the index cannot be read: {error}", where=str(self.folder / INDEX), fix=_FIX) from error
