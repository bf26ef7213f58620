"""Encoders by name: GPT4Rec's own backbone, and the ones it is compared with."""

from __future__ import annotations

import importlib

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder
from service.artifact.graphs.state_layout import StateLayout

# More events than any history has.
EVERYTHING = 2**62

# Name → module and class. `encoder_class` imports the module on first use.
ENCODERS: dict[str, tuple[str, str]] = {
    "gpt4rec": ("streaming", "Streaming"),
    "prefix": ("prefix", "Prefix"),
    "injected": ("injected", "Injected"),
    "sasrec": ("sasrec", "SASRec"),
    "gru4rec": ("gru4rec", "GRU4Rec"),
    "bert4rec": ("bert4rec", "BERT4Rec"),
    "lstm_attention": ("lstm_attention", "LSTMAttention"),
    "encoder_decoder": ("encoder_decoder", "EncoderDecoder"),
    "gpt2rec": ("gpt2rec", "GPT2Rec"),
    "window_attention": ("window_attention", "WindowAttention"),
    "gated_linear": ("gated_linear", "GatedLinear"),
    "compressive": ("compressive", "Compressive"),
    "memory_bank": ("memory_bank", "MemoryBank"),
    "hierarchy": ("hierarchy", "Hierarchy"),
    "behaviours": ("behaviours", "Behaviours"),
}


def encoder_class(name: str) -> type[Encoder]:
    """Returns the class behind a name of `ENCODERS`.

    Raises:
        KeyError: No encoder has this name.
    """
    module, cls = ENCODERS[name]
    encoder: type[Encoder] = getattr(importlib.import_module(f"model.network.encoders.{module}"), cls)
    return encoder


def receptive_field(config: NetworkConfig) -> int:
    """Returns how many of the newest events can influence the hidden state."""
    return encoder_class(config.encoder).receptive_field(config)


def reads(config: NetworkConfig) -> int:
    """Returns how many of the newest events a state carried since the first event depends on."""
    return EVERYTHING if remembers_trimmed(config) else receptive_field(config)


def remembers_trimmed(config: NetworkConfig) -> bool:
    """Returns whether a state depends on events that the log may no longer keep."""
    return state_layout(config).remembers_trimmed


def state_layout(config: NetworkConfig) -> StateLayout:
    """Returns the arrays of the encoder's states; none if it does not stream."""
    encoder = encoder_class(config.encoder)
    return encoder.state_layout(config) if encoder.streams else StateLayout(config.d_model)


def reads_context(config: NetworkConfig) -> bool:
    """Returns whether h depends on the user's features."""
    return encoder_class(config.encoder).reads_context


def streams(config: NetworkConfig) -> bool:
    """Returns whether a state can be carried from event to event."""
    return encoder_class(config.encoder).streams
