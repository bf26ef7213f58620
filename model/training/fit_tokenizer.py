"""The tokenizer that a configuration asks for, fitted on a training part."""

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
    """Codes for every item of the catalogue; `texts` [N, dim] are the items' sentence vectors, where they are used."""
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
