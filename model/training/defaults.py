"""What a configuration leaves open is chosen from the training data, by rules that hold for data of its kind.

    layers    one where users have few events: with nothing far back to look at, a second one only overfits
    dropout   less where items are seen often, and every embedding has been told many times what it should be
    negatives the full softmax where the catalogue is small (`model.training.losses.choose_negatives`)
    codes     as many as the catalogue needs (`model.tokenizers.semantic.default_code_size`)

Figures behind the thresholds are in docs/experiments.md.
"""

from __future__ import annotations

from dataclasses import replace

from model.data.dataset import Sequences
from model.training.config import TrainConfig

SHORT_HISTORY = 20  # mean events a user
OFTEN_SEEN = 200  # mean events an item


def by_rule(config: TrainConfig, train: Sequences) -> TrainConfig:
    """The configuration with what the user has not set, where it is of the default size, chosen from `train`."""
    if config.size != "small":
        return config
    chosen: dict[str, float] = {}
    if train.n_events < SHORT_HISTORY * train.n_users:
        chosen["layers"] = 1
    if train.n_events >= OFTEN_SEEN * train.n_items:
        chosen["dropout"] = 0.2
    return replace(config, network={**chosen, **config.network})
