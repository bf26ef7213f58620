"""Encoders by name: GPT4Rec's own backbone, and those it is compared with."""

from __future__ import annotations

import importlib

from model.encoders.base import Encoder, Events

# Each is a class of its own module, which is imported when it is asked for.
ENCODERS: dict[str, str] = {
    "gpt4rec": "Streaming",
    "prefix": "Prefix",
    "injected": "Injected",
    "sasrec": "SASRec",
    "gru4rec": "GRU4Rec",
    "bert4rec": "BERT4Rec",
    "lstm_attention": "LSTMAttention",
    "encoder_decoder": "EncoderDecoder",
}


def encoder_class(name: str) -> type[Encoder]:
    """Raises KeyError for a name that no encoder has."""
    found: type[Encoder] = getattr(importlib.import_module(f"model.encoders.{name}"), ENCODERS[name])
    return found


__all__ = ["ENCODERS", "Encoder", "Events", "encoder_class"]
