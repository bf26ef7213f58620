"""What a training takes from a GPT-2: the shape of its network, and the start of its encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model.errors import ConfigError
from model.network.gpt2_weights import GPT2Folder
from model.training.config import TrainConfig


def resolve_pretrained(config: TrainConfig) -> TrainConfig:
    """Returns the configuration with the network fields that follow from the GPT-2 that it names, if it names one.

    Raises:
        ConfigError: A field that was set does not fit.
        RunError: The folder holds no GPT-2 that can be used.
    """
    if not config.gpt2:
        return config
    found = GPT2Folder.open(Path(config.gpt2))
    for name, value in found.network().items():
        given = config.network.get(name, value)
        if name == "layers":
            if given > value:
                raise ConfigError(f"network.layers is {given}, but the GPT-2 in {config.gpt2} has {value} layers")
        elif given != value:
            raise ConfigError(
                f"network.{name} is {given}, but the GPT-2 in {config.gpt2} needs {value}; leave network.{name} out"
            )
    window = config.network_values()["window"]
    if window > found.positions:
        raise ConfigError(
            f"network.window is {window}, but the GPT-2 in {config.gpt2} has {found.positions} positions; "
            f"set network.window={found.positions} or less"
        )
    return replace(config, network={**found.network(), **config.network})
