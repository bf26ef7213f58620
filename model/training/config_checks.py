"""Which settings of a training fit each other, by subject: the network, what it reads, weights of losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from model.errors import ConfigError
from model.network.behaviour_streams import STREAMS
from model.network.config import NetworkConfig, setting_of
from model.network.encoders.registry import encoder_class
from model.training.method_settings import MethodSettings
from service.artifact.features import EVENT_TYPES

NETWORK_SETTINGS = {f.name: declared for f in fields(NetworkConfig) if (declared := setting_of(f)) is not None}
NETWORK_KEYS = set(NETWORK_SETTINGS)
NETWORK_DEFAULTS = {f.name: f.default for f in fields(NetworkConfig) if f.name in NETWORK_KEYS}
_NETWORK_HINTS = get_type_hints(NetworkConfig)
NETWORK_CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(_NETWORK_HINTS[name]) for name in NETWORK_SETTINGS if get_origin(_NETWORK_HINTS[name]) is Literal
}
# What `window_attention` alone reads.
OF_WINDOW_ATTENTION = (
    "pattern", "stride", "routed_keys", "positions", "max_distance", "time_decay", "decay_rate",
)  # fmt: skip


def check_type_weights(weights: Mapping[str, float]) -> None:
    """Checks the weights of targets by event type.

    Raises:
        ConfigError: A type is unknown, or a weight is none.
    """
    _check_weights("type_weights", weights, EVENT_TYPES)
    if all(weights.get(name, 1) == 0 for name in EVENT_TYPES):
        raise ConfigError("type_weights must give at least one event type a weight above 0")


def check_behaviours(losses: Mapping[str, float], encoder: str) -> None:
    """Checks the weights of the losses by behaviour.

    Raises:
        ConfigError: A stream is unknown, a weight is none, or the encoder has no streams.
    """
    _check_weights("behaviour_losses", losses, STREAMS)
    if losses and encoder != "behaviours":
        raise ConfigError(f"behaviour_losses need encoder=behaviours, which has a stream for each, not {encoder}")


def _check_weights(setting: str, weights: Mapping[str, float], known: tuple[str, ...]) -> None:
    for name, weight in weights.items():
        if name not in known:
            raise ConfigError(f"{setting}.{name} is unknown; choose from {', '.join(known)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ConfigError(f"{setting}.{name} must be a number, 0 or more, got {weight!r}")


def check_beside_items(encoder: str, network: Mapping[str, Any], methods: MethodSettings) -> None:
    """Checks what a network reads beside items, types and times, and that the methods know it.

    Raises:
        ConfigError: The encoder, or a method, does not read it.
    """
    if network.get("query_vectors", 0) and not network.get("query_buckets", 0):
        raise ConfigError("network.query_vectors stand beside n-grams; set network.query_buckets too")
    if network.get("query_buckets", 0):
        chosen = encoder_class(encoder)
        if chosen.streams or chosen.task != "next":
            raise ConfigError(
                f"network.query_buckets: the encoder {encoder} reads no searches; choose encoder=behaviours, "
                "or set it to 0"
            )
        _refuse_methods(methods, "queries", "network.query_buckets to 0", ("teacher",))
    if network.get("session_ids", False):
        if encoder != "hierarchy":
            raise ConfigError(f"network.session_ids has no effect with the encoder {encoder}; leave it out")
        _refuse_methods(methods, "sessions", "network.session_ids to false")


def _refuse_methods(methods: MethodSettings, read: str, instead: str, more: tuple[str, ...] = ()) -> None:
    """Refuses methods whose views of a sequence have no queries, or no sessions."""
    for name in ("augment", "contrast", "pretrain_epochs", *more):
        if getattr(methods, name):
            raise ConfigError(f"methods.{name} reads no {read}; leave it out, or set {instead}")


def check_network(encoder: str, given: Mapping[str, Any], network: Mapping[str, Any], max_length: int) -> None:
    """Checks the fields of a network beside each other.

    Args:
        encoder: The encoder.
        given: The fields that were set.
        network: All fields of its size, with those that were set.
        max_length: Events of a training chunk.

    Raises:
        ConfigError: They do not fit.
    """
    if network["d_head"] % 2:
        raise ConfigError(f"network.d_head must be even for rotary positions, got {network['d_head']}")
    for name, choices in NETWORK_CHOICES.items():
        if network.get(name, choices[0]) not in choices:
            raise ConfigError(f"network.{name} must be one of {', '.join(choices)}")
    if encoder != "window_attention" and (vain := [name for name in OF_WINDOW_ATTENTION if name in given]):
        raise ConfigError(
            f"network.{vain[0]} has no effect with the encoder {encoder}; choose encoder window_attention"
        )
    if network.get("attribute_slots") and encoder != "encoder_decoder":
        raise ConfigError(
            f"network.attribute_slots has no effect with the encoder {encoder}; choose encoder encoder_decoder"
        )
    if encoder == "gpt4rec" and max_length <= network["window"]:
        raise ConfigError(
            f"max_length ({max_length}) must exceed the window ({network['window']}): a longer history is cut "
            "with a window of events before each cut; raise max_length or lower network.window"
        )
