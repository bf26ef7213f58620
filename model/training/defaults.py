"""Settings that a configuration leaves open are chosen from the training data.

`resolve_defaults` decides the network's fields; `RULES` describes these rules and those that live elsewhere, for
docs/training.md. docs/experiments.md has the figures behind the thresholds.
"""

from __future__ import annotations

from dataclasses import replace

from model.data.dataset import Sequences
from model.data.split import LEAST_VALIDATION_USERS, MOST_VALIDATION_USERS
from model.training.config import TrainConfig
from model.training.losses import FULL_SOFTMAX_ITEMS, SAMPLED_NEGATIVES
from model.training.repeats import LEAST_REPEATS

SHORT_HISTORY = 20  # mean events of a user; below it one layer is enough
LONG_HISTORY = 200  # mean events of a user; longer ones make epochs so long that few are trained
SELDOM_SEEN = 40  # mean events of an item; below it the network overfits within a few epochs
MORE_DROPOUT = 0.5
OFTEN_SEEN = 200  # mean events of an item; from there on less dropout is enough
LESS_DROPOUT = 0.2

# Setting → the rule that decides it where it is left open, and why.
RULES: dict[str, str] = {
    "network.layers": f"for size `small`, 1 where users have fewer than {SHORT_HISTORY} training events on average: "
    "nothing lies far back, so a second layer only overfits",
    "network.dropout": f"for size `small`, {MORE_DROPOUT:g} where items have fewer than {SELDOM_SEEN} training events "
    f"on average and users fewer than {LONG_HISTORY}, as the network soon overfits there, and {LESS_DROPOUT:g} where "
    f"items have {OFTEN_SEEN} or more: each embedding then has many examples",
    # model.training.losses.choose_negatives
    "negatives": f"the full softmax for at most {FULL_SOFTMAX_ITEMS} items, else {SAMPLED_NEGATIVES} negatives",
    # model.tokenizers.semantic.default_code_size
    "code_size": "the power of two nearest to the number of items to the power of 1 / `code_levels`, from 8 to 256",
    # model.training.repeats.judge_repeats
    "repeats": f"`true` where {LEAST_REPEATS:.0%} of the validation targets or more were in the user's history, and "
    "plain lists that hold it find more of the targets than lists without it, by more than chance",
    # model.data.split.choose_validation_users
    "validation_users": f"a tenth of the users, from {LEAST_VALIDATION_USERS} to {MOST_VALIDATION_USERS}: enough to "
    "choose an epoch by, while the others are trained on their newest events",
}


def resolve_defaults(config: TrainConfig, train: Sequences) -> TrainConfig:
    """Returns the configuration with the network fields that the user left open chosen from `train`.

    Fields that the user has set stay, and so do configurations of another size than the default.
    """
    if config.size != "small":
        return config
    chosen: dict[str, float] = {}
    if train.n_events < SHORT_HISTORY * train.n_users:
        chosen["layers"] = 1
    if train.n_events < min(SELDOM_SEEN * train.n_items, LONG_HISTORY * train.n_users):
        chosen["dropout"] = MORE_DROPOUT
    elif train.n_events >= OFTEN_SEEN * train.n_items:
        chosen["dropout"] = LESS_DROPOUT
    return replace(config, network={**chosen, **config.network})
