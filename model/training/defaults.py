"""Settings that a configuration leaves open are chosen from the training data.

    network.layers     1 where users have few events: nothing lies far back, so a second layer only overfits
    network.dropout    less where items are seen often, because each embedding then has many training examples
    negatives          the full softmax for small catalogues (`model.training.losses.choose_negatives`)
    code_size          by the size of the catalogue (`model.tokenizers.semantic.default_code_size`)
    validation_users   by the number of users (`model.data.split.choose_validation_users`)

This module decides the first two, for the default size. docs/experiments.md has the figures behind the thresholds.
"""

from __future__ import annotations

from dataclasses import replace

from model.data.dataset import Sequences
from model.training.config import TrainConfig

SHORT_HISTORY = 20  # mean events of a user; below it one layer is enough
OFTEN_SEEN = 200  # mean events of an item; from there on less dropout is enough
LESS_DROPOUT = 0.2


def resolve_defaults(config: TrainConfig, train: Sequences) -> TrainConfig:
    """Returns the configuration with the network fields that the user left open chosen from `train`.

    Fields that the user has set stay, and so do configurations of another size than the default.
    """
    if config.size != "small":
        return config
    chosen: dict[str, float] = {}
    if train.n_events < SHORT_HISTORY * train.n_users:
        chosen["layers"] = 1
    if train.n_events >= OFTEN_SEEN * train.n_items:
        chosen["dropout"] = LESS_DROPOUT
    return replace(config, network={**chosen, **config.network})
