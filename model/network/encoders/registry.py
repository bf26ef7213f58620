"""Encoders by name: GPT4Rec's own backbone, and those it is compared with."""

from __future__ import annotations

import importlib

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder

# Module and class of each. A module is imported when its encoder is first asked for.
ENCODERS: dict[str, tuple[str, str]] = {
    "gpt4rec": ("streaming", "Streaming"),
    "prefix": ("prefix", "Prefix"),
    "injected": ("injected", "Injected"),
    "sasrec": ("sasrec", "SASRec"),
    "gru4rec": ("gru4rec", "GRU4Rec"),
    "bert4rec": ("bert4rec", "BERT4Rec"),
    "lstm_attention": ("lstm_attention", "LSTMAttention"),
    "encoder_decoder": ("encoder_decoder", "EncoderDecoder"),
}


def encoder_class(name: str) -> type[Encoder]:
    """Returns the class behind a name of `ENCODERS`.

    Raises:
        KeyError: No encoder has this name.
    """
    module, cls = ENCODERS[name]
    found: type[Encoder] = getattr(importlib.import_module(f"model.network.encoders.{module}"), cls)
    return found


def receptive_field(config: NetworkConfig) -> int:
    """Returns how many of the newest events can influence h."""
    return encoder_class(config.encoder).receptive_field(config)


def streams(config: NetworkConfig) -> bool:
    """Returns whether a state can be carried from event to event."""
    return encoder_class(config.encoder).streams
