"""A GPT-2 in a local folder as a scorer of orders, in numpy: nothing is downloaded, and nothing else is installed.

    FOLDER/config.json, model.safetensors    as `save_pretrained` of transformers writes them
    FOLDER/tokenizer.json                    its tokenizer

The texts of an order stand on lines of their own. It runs when an order is learned, so numpy is fast enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from model.errors import RunError
from model.network.gpt2_weights import WEIGHTS, GPT2Folder
from service.artifact.array_types import Array, Float64Array, FloatArray, IntArray

TOKENIZER = "tokenizer.json"
# Tokens that are read of an order.
_TOKENS = 64
_EPSILON = 1e-5
_START = "<|endoftext|>"


class LanguageModel:
    """Scores orders of texts by the log-probability of their tokens.

    Args:
        folder: The folder of a GPT-2.

    Raises:
        RunError: The folder, or a file of it, is missing or damaged, or the package that reads its tokenizer is.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RunError(
                "there is no language model",
                where=str(folder),
                fix=f"give a folder with config.json, {WEIGHTS} and {TOKENIZER} of a GPT-2; none is downloaded",
            )
        self._shape = GPT2Folder.open(folder)
        self._tokenizer = _tokenizer(folder / TOKENIZER)
        self._weights = _weights(folder / WEIGHTS)
        self._start = self._tokenizer.token_to_id(_START) or 0
        missing = [name for name in ("wte.weight", "wpe.weight", "ln_f.weight") if name not in self._weights]
        if missing:
            raise RunError(f"the weights lack {', '.join(missing)}", where=str(folder / WEIGHTS), fix="copy them again")

    def log_probs(self, orders: Sequence[Sequence[str]]) -> Float64Array:
        """Returns [n] the natural logarithm of the probability of each order, texts from the top."""
        tokens = [self._tokenizer.encode("\n".join(texts)).ids for texts in orders]
        limit = min(_TOKENS, self._shape.positions)
        rows = [[self._start, *some][:limit] for some in tokens]
        ids = np.zeros((len(rows), max(len(row) for row in rows)), np.int64)
        there = np.zeros(ids.shape, bool)
        for place, row in enumerate(rows):
            ids[place, : len(row)], there[place, : len(row)] = row, True
        of_token = self._next(ids)
        return np.asarray((of_token * there[:, 1:]).sum(axis=1), np.float64)

    def _next(self, ids: IntArray) -> FloatArray:
        """[n, length − 1] log-probability of each token but the first, given those before it."""
        w, length = self._weights, ids.shape[1]
        x = w["wte.weight"][ids] + w["wpe.weight"][:length]
        hidden = np.where(np.tril(np.ones((length, length), bool)), np.float32(0), np.float32(-1e9))
        for layer in range(self._shape.layers):
            x = self._block(x, hidden, f"h.{layer}")
        logits = self._norm(x[:, :-1], "ln_f") @ w["wte.weight"].T
        top = logits.max(axis=2, keepdims=True)
        total = top[..., 0] + np.log(np.exp(logits - top).sum(axis=2))
        chosen = np.take_along_axis(logits, ids[:, 1:, None], axis=2)[..., 0]
        return np.asarray(chosen - total, np.float32)

    def _block(self, x: FloatArray, hidden: FloatArray, name: str) -> FloatArray:
        n, length, width = x.shape
        parts = self._linear(self._norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn")
        split = parts.reshape(n, length, 3, self._shape.heads, -1).transpose(2, 0, 3, 1, 4)
        query, key, value = split
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[-1])) + hidden
        share = np.exp(scores - scores.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        mixed = (share @ value).transpose(0, 2, 1, 3).reshape(n, length, width)
        x = x + self._linear(mixed, f"{name}.attn.c_proj")
        inner = self._linear(self._norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        cubed = np.float32(np.sqrt(2.0 / np.pi)) * (inner + np.float32(0.044715) * inner**3)
        inner = np.float32(0.5) * inner * (1 + np.tanh(cubed))
        return x + self._linear(inner, f"{name}.mlp.c_proj")

    def _linear(self, x: FloatArray, name: str) -> FloatArray:
        """GPT-2 stores its linear layers as [in, out]."""
        return np.asarray(x @ self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"], np.float32)

    def _norm(self, x: FloatArray, name: str) -> FloatArray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        return np.asarray(centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"], np.float32)


def _tokenizer(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise RunError("the tokenizer needs a package", fix="pip install 'gpt4rec[text]'") from error
    try:
        return Tokenizer.from_str(file.read_text("utf-8"))
    except Exception as error:  # the package raises nothing narrower
        raise RunError(
            f"the tokenizer cannot be read: {error}", where=str(file), fix="save it with the model, as tokenizer.json"
        ) from error


def _weights(file: Path) -> Mapping[str, Array]:
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunError(f"the weights cannot be read: {error}", where=str(file), fix="copy them again") from error
    return {name.removeprefix("transformer."): array.astype(np.float32) for name, array in found.items()}
