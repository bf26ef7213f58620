"""Fits the tokenizer that a configuration names."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.data.dataset import Dataset, Sequences
from model.tokenizers.atomic import AtomicTokenizer
from model.tokenizers.hierarchical import HierarchicalTokenizer
from model.tokenizers.item_content import contents_of
from model.tokenizers.semantic import SemanticTokenizer
from model.tokenizers.tokenizer import Tokenizer
from model.training.config import TrainConfig


def fit_tokenizer(
    config: TrainConfig, dataset: Dataset, train: Sequences, texts: npt.NDArray[np.float32] | None
) -> Tokenizer:
    """Fits a tokenizer: a token path for every item of the catalogue.

    Args:
        config: Names the tokenizer and its settings.
        dataset: Provides categories, brands and attributes.
        train: The training part; nothing else is read of the log.
        texts: [N, dim] vectors of item texts and given vectors, side by side; None where neither is used.
    """
    match config.tokenizer:
        case "atomic":
            return AtomicTokenizer.fit(train.n_items, spare=max(8, train.n_items // 20))
        case "hierarchical":
            return HierarchicalTokenizer.fit(contents_of(dataset, train.item_ids))
        case _:
            return SemanticTokenizer.fit(
                contents_of(dataset, train.item_ids, texts),
                train.item,
                train.offsets,
                code_levels=config.code_levels,
                code_size=config.code_size or None,
                content_weight=config.content_weight,
                seed=config.seed,
            )
