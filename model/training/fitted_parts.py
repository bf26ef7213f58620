"""What is fitted on the training part before the network: context vocabulary, tokenizer, and the network's start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import Dataset, Sequences
from model.data.errors import DataError
from model.data.searches import Searches
from model.network.config import NetworkConfig
from model.network.gpt2_weights import GPT2Folder
from model.network.gpt4rec import GPT4Rec
from model.network.item_rows import ItemParts
from model.tokenizers.item_vectors import collaborative_vectors
from model.tokenizers.loading import load_tokenizer
from model.tokenizers.tokenizer import Tokenizer
from model.training.conditions import Conditions, fit_context, item_controls, item_styles
from model.training.config import TrainConfig
from model.training.content_vectors import ContentVectors, content_dim, content_vectors
from model.training.fit_tokenizer import fit_tokenizer
from model.training.item_attributes import attribute_rows, fit_attributes
from model.training.known_queries import frequent_queries, query_vectors
from model.training.methods.adapters import start_from_backbone
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import EVENT_TYPES, ContextVocabulary, Vocabulary
from service.artifact.items.item_attributes import AttributeVocabulary
from service.artifact.query_text import KnownQueries


@dataclass(frozen=True)
class FittedParts:
    """What training needs besides batches and weights. Nothing in it knows a held-out event.

    Attributes:
        context: Rows of user features, scenes, categories and price bands.
        vocabulary: The inputs of the encoder.
        conditions: Context rows of the users, scenes and items of the log.
        content: Vectors of the items' content; none in a resumed run, which has them in its tokenizer and its weights.
        tokenizer: Token paths of the items.
        network: Shape of the network.
        attributes: The attributes of items that the network reads; None if it reads none.
        attribute_rows: [N, slots] those of each item.
        known_queries: The queries that the network has vectors of; None if it has none.
        query_vectors: [n, 384] those vectors; None in a resumed run or an increment, which have them in their weights.
    """

    context: ContextVocabulary
    vocabulary: Vocabulary
    conditions: Conditions
    content: ContentVectors
    tokenizer: Tokenizer
    network: NetworkConfig
    attributes: AttributeVocabulary | None = None
    attribute_rows: IntArray | None = None
    known_queries: KnownQueries | None = None
    query_vectors: FloatArray | None = None

    def save(self, folder: Path) -> None:
        """Writes the files of a run folder that name items and queries."""
        self.tokenizer.save(folder)
        if self.known_queries is not None:
            self.known_queries.save(folder)


def fit_parts(
    config: TrainConfig,
    dataset: Dataset,
    train: Sequences,
    data_path: Path,
    resumed: Path | None = None,
    searches: Searches | None = None,
) -> FittedParts:
    """Fits the parts on the training part of a split.

    Args:
        config: The training configuration.
        dataset: Provides users, items and their texts.
        train: The training part.
        data_path: Folder of the data set, where sentence vectors are cached.
        resumed: Run folder whose tokenizer is loaded instead of fitted.
        searches: Those of the log's users; None where there are none.
    """
    controls = item_controls(dataset, train.item_ids)
    styles = item_styles(dataset, train, config.styles)
    context = fit_context(dataset, train, controls, styles)
    conditions = Conditions.of(dataset, train, context, controls, styles)
    content = ContentVectors()
    if resumed is None:
        content = content_vectors(config, dataset, train.item_ids, data_path)
    tokenizer = fit_tokenizer(config, dataset, train, content.all) if resumed is None else load_tokenizer(resumed)
    attributes = fit_attributes(dataset, train, config.network_values().get("attribute_slots", 0))
    queries = frequent_queries(train, searches, config.network_values().get("query_vectors", 0))
    known = KnownQueries.of(queries) if queries else None
    network = NetworkConfig(
        n_items=train.n_items,
        code_sizes=tokenizer.code_sizes,
        n_types=len(EVENT_TYPES),
        n_context_rows=context.n_rows,
        n_slots=len(context.slots),
        has_time=dataset.has_time,
        encoder=config.encoder,
        n_fields=len(context.fields),
        content=content_dim(config, dataset),
        n_attribute_rows=0 if attributes is None else attributes.n_rows,
        n_known_queries=len(queries),
        **config.network_values(),
        **prompt_rows(config, context),
    )
    c, ids = network, train.item_ids
    vocabulary = Vocabulary.of(
        ids, context, dataset.has_time, c.n_types, c.query_buckets, known, reads_sessions=c.session_ids
    )  # fmt: skip
    rows = attribute_rows(attributes, dataset, train)
    vectors = query_vectors(queries, data_path) if queries and resumed is None else None
    return FittedParts(
        context, vocabulary, conditions, content, tokenizer, network, attributes, rows, known, vectors
    )  # fmt: skip


def prompt_rows(config: TrainConfig, context: ContextVocabulary) -> dict[str, Any]:
    """Returns where the values are that have soft prompts; nothing without prompts.

    Raises:
        DataError: The data has no such values.
    """
    if not config.network_values().get("prompts"):
        return {}
    rows = context.values.get(config.prompt_for)
    if config.prompt_for not in context.slots or not rows:
        raise DataError(
            f"network.prompts needs values of {config.prompt_for!r}, but the data has none",
            fix=f"leave out network.prompts, or set prompt_for to one of {', '.join(sorted(context.values))}",
        )
    first = min(rows.values())
    return {
        "prompt_slot": context.slots.index(config.prompt_for),
        "prompt_first": first,
        "prompt_rows": max(rows.values()) - first + 1,
    }


def first_item_vectors(config: TrainConfig, parts: FittedParts, train: Sequences) -> Tensor:
    """Returns the vectors [N, ≤ d] that item embeddings start from, where the configuration asks for it."""
    d_model = parts.network.d_model
    return torch.from_numpy(collaborative_vectors(train.item, train.offsets, train.n_items, d_model, config.seed))


def build_network(config: TrainConfig, parts: FittedParts, train: Sequences, item: ItemParts | None = None) -> GPT4Rec:
    """Returns the network as training starts with it, on the CPU; seeds torch's global generator.

    Args:
        config: The training configuration.
        parts: What was fitted before.
        train: The training part.
        item: This process's part of the item table, which starts from no vectors here; None: all of it.
    """
    torch.manual_seed(config.seed)
    model = GPT4Rec(parts.network, torch.from_numpy(parts.tokenizer.codes), item)
    if model.of_content is not None and parts.content.in_items is not None:
        seen = torch.from_numpy(np.bincount(train.item, minlength=train.n_items))
        model.of_content.set_content(torch.from_numpy(parts.content.in_items), seen)
    if model.attributes is not None and parts.attribute_rows is not None:
        model.attributes.set_rows(torch.from_numpy(parts.attribute_rows))
    if model.known_query is not None and parts.query_vectors is not None:
        model.known_query.vectors.copy_(torch.from_numpy(parts.query_vectors))
    if config.item_init == "collaborative" and item is None:
        model.init_item_embeddings(first_item_vectors(config, parts, train))
    if config.gpt2:
        GPT2Folder.open(Path(config.gpt2)).start(model)
    if backbone := config.method_settings().backbone:
        start_from_backbone(model, Path(backbone))
    return model
