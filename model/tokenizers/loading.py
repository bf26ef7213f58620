"""Loads a saved tokenizer of any kind. A new kind of tokenizer is added here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from model.tokenizers.atomic import AtomicTokenizer
from model.tokenizers.hierarchical import HierarchicalTokenizer
from model.tokenizers.tokenizer import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads a tokenizer that `Tokenizer.save` wrote.

    Args:
        folder: The folder with `tokenizer.json` and `tokenizer.npz`.

    Raises:
        ValueError: The kind is unknown to this version, or the paths are inconsistent.
        OSError: A file is missing.
    """
    from model.tokenizers.semantic import SemanticTokenizer

    meta = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    with (folder / "tokenizer.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    codes, sizes = arrays.pop("codes"), meta["code_sizes"]
    match meta["kind"]:
        case "atomic":
            return AtomicTokenizer(codes, sizes)
        case "hierarchical":
            return HierarchicalTokenizer(codes, sizes, meta["names"], meta["depth"])
        case "semantic":
            return SemanticTokenizer.from_parts(codes, sizes, meta, arrays)
        case kind:
            raise ValueError(f"unknown tokenizer kind {kind!r}: another version of the program wrote {folder}")
