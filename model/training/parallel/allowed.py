"""Which configurations several processes can train alike."""

from __future__ import annotations

from model.errors import ConfigError
from model.training.config import TrainConfig
from model.training.method_settings import METHOD_DEFAULTS

# Methods that compare rows of a batch with one another, draw from what the network says, or go over a batch twice.
OF_ONE_PROCESS = (
    "contrast", "diversity", "routing_balance", "item_teacher", "meta_start", "teacher", "adversarial",
    "scheduled_sampling", "pretrain_epochs",
)  # fmt: skip
# Encoders whose kernels draw the dropout between their layers themselves.
_DRAW_THEMSELVES = ("gru4rec", "lstm_attention")
# Settings that make something else as large as the item table, or read all of it.
_NEED_THE_TABLE = {"tokenizer": ("atomic",), "text": ("items",), "vectors": ("items",), "negatives": (0,)}


def check_allowed(config: TrainConfig) -> None:
    """Refuses what a training on several processes would compute otherwise than one.

    Raises:
        ConfigError: A setting does not go with several processes.
    """
    methods, network = config.method_settings(), config.network_values()
    for name in OF_ONE_PROCESS:
        if getattr(methods, name) != METHOD_DEFAULTS[name]:
            raise ConfigError(
                f"methods.{name} works on whole batches, and several processes have a part each; train it without "
                "torchrun, or leave it out"
            )
    if config.behaviour_losses:
        raise ConfigError("behaviour_losses does not work on several processes; train it without torchrun")
    if config.encoder in _DRAW_THEMSELVES and network.get("layers", 1) > 1 and network.get("dropout", 0) > 0:
        raise ConfigError(
            f"the kernel of encoder {config.encoder} draws the dropout between its layers itself, which several "
            "processes would do differently; set network.layers=1 or network.dropout=0"
        )
    if config.shard_items:
        for name, values in _NEED_THE_TABLE.items():
            if getattr(config, name) in values:
                raise ConfigError(f"shard_items does not go with {name} {getattr(config, name)!r}: it needs all items")
        if methods.backbone:
            raise ConfigError("shard_items does not go with methods.backbone: it copies rows of a whole item table")
