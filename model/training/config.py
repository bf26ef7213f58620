"""What a training run is: one frozen configuration, saved beside the weights and read back strictly."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml

from model.errors import ConfigError
from model.network.config import SIZES, NetworkConfig, StateDtype
from model.network.encoders.registry import ENCODERS
from service.artifact.features import EVENT_TYPES

STATE_DTYPES: tuple[str, ...] = get_args(StateDtype)

NETWORK_KEYS = {f.name for f in fields(NetworkConfig)} - {
    "n_items", "code_sizes", "n_types", "n_context_rows", "n_slots", "has_time", "encoder", "n_fields",
    "content",
}  # fmt: skip

NETWORK_DEFAULTS = {f.name: f.default for f in fields(NetworkConfig) if f.name in NETWORK_KEYS}

# Smallest and largest allowed value.
LIMITS: dict[str, tuple[float, float]] = {
    "code_levels": (1, 8),
    "code_size": (0, 65_536),
    "content_weight": (0, math.inf),
    "max_length": (2, math.inf),
    "batch_tokens": (1, math.inf),
    "learning_rate": (0, math.inf),
    "weight_decay": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "clip_norm": (1e-6, math.inf),
    "ema": (0, 1),
    "codes_weight": (0, math.inf),
    "dense_weight": (0, math.inf),
    "negatives": (-1, math.inf),
    "label_smoothing": (0, 1),
    "item_dropout": (0, 1),
    "gap_known": (0, 1),
    "features_known": (0, 1),
    "scene_known": (0, 1),
    "control_known": (0, 1),
    "max_epochs": (1, math.inf),
    "threads": (0, 1024),
    "patience": (0, math.inf),
    "validation_users": (-1, math.inf),
    "seed": (0, 2**63 - 1),
    "network.dropout": (0, 0.99),
    **{f"network.{name}": (1, math.inf) for name in ("d_model", "layers", "heads", "d_ff", "d_context", "window")},
    "network.d_head": (2, math.inf),
}


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of a run. `network` overrides single fields of the chosen `size`."""

    size: str = "small"
    encoder: str = "gpt4rec"
    network: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["leave_one_out", "time"] = "leave_one_out"
    tokenizer: Literal["atomic", "hierarchical", "semantic"] = "semantic"
    code_levels: int = 2
    code_size: int = 0  # 0: chosen from the number of items
    content_weight: float = 0.5
    text: Literal["none", "codes", "items"] = "none"  # item texts place the codes; items: and stand in for the unseen
    item_init: Literal["collaborative", "random"] = "collaborative"
    max_length: int = 200
    batch_tokens: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    decay: Literal["linear", "none"] = "linear"  # of the learning rate, over the epochs or the minutes there are
    clip_norm: float = 1.0
    ema: float = 0.98
    codes_weight: float = 0.25
    dense_weight: float = 1.0
    negatives: int = -1  # 0: the full softmax; −1: the full one for small catalogues, else a sampled one
    label_smoothing: float = 0.0
    item_dropout: float = 0.02  # inputs replaced by the unknown item
    gap_known: float = 0.5
    features_known: float = 0.5
    scene_known: float = 0.5
    control_known: float = 0.1
    type_weights: Mapping[str, float] = field(default_factory=dict)  # of targets by event type in the loss; 1 without
    max_epochs: int = 20
    patience: int = 8
    repeats: bool = False  # people take the same items again: validation lists may hold those of the history
    validation_users: int = -1  # of a leave-one-out split; 0: everybody; −1: by the number of users (`data_split`)
    threads: int = 1  # on a CPU; 0: one a core, and a resumed run is then equal but for rounding
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size {self.size!r} is unknown; choose one of {', '.join(SIZES)}")
        if self.encoder not in ENCODERS:
            raise ConfigError(f"encoder {self.encoder!r} is unknown; choose one of {', '.join(ENCODERS)}")
        for key in self.network:
            if key not in NETWORK_KEYS:
                raise ConfigError(_unknown(f"network.{key}", [f"network.{name}" for name in NETWORK_KEYS]))
        if self.split not in ("leave_one_out", "time"):
            raise ConfigError(f"split {self.split!r} is unknown; choose leave_one_out or time")
        if self.decay not in ("linear", "none"):
            raise ConfigError(f"decay {self.decay!r} is unknown; choose linear or none")
        if self.text not in ("none", "codes", "items"):
            raise ConfigError(f"text {self.text!r} is unknown; choose none, codes or items")
        if self.item_init not in ("collaborative", "random"):
            raise ConfigError(f"item_init {self.item_init!r} is unknown; choose collaborative or random")
        if self.tokenizer not in ("atomic", "hierarchical", "semantic"):
            raise ConfigError(f"tokenizer {self.tokenizer!r} is unknown; choose atomic, hierarchical or semantic")
        if self.text == "codes" and self.tokenizer != "semantic":
            raise ConfigError(
                f"text codes has no effect with the {self.tokenizer} tokenizer, whose codes are not placed by content; "
                "choose tokenizer semantic, or text items"
            )
        self._check_values()

    def _check_values(self) -> None:
        network = self.network_values()
        for key, (least, most) in LIMITS.items():
            name = key.removeprefix("network.")
            value = getattr(self, key) if name == key else network.get(name, NETWORK_DEFAULTS[name])
            if not least <= value <= most:
                allowed = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
                raise ConfigError(f"{key} must be {allowed}, got {value!r}")
        self._check_type_weights()
        if network["d_head"] % 2:
            raise ConfigError(f"network.d_head must be even for rotary positions, got {network['d_head']}")
        if network.get("state_dtype", "float16") not in STATE_DTYPES:
            raise ConfigError(f"network.state_dtype must be one of {', '.join(STATE_DTYPES)}")
        if self.encoder == "gpt4rec" and self.max_length <= network["window"]:
            raise ConfigError(
                f"max_length ({self.max_length}) must exceed the window ({network['window']}): a longer history is cut "
                "with a window of events before each cut; raise max_length or lower network.window"
            )

    def _check_type_weights(self) -> None:
        for name, weight in self.type_weights.items():
            if name not in EVENT_TYPES:
                raise ConfigError(f"type_weights.{name} is unknown; choose from {', '.join(EVENT_TYPES)}")
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ConfigError(f"type_weights.{name} must be a number, 0 or more, got {weight!r}")
        if all(self.type_weights.get(name, 1) == 0 for name in EVENT_TYPES):
            raise ConfigError("type_weights must leave a type to learn from")

    def network_values(self) -> dict[str, Any]:
        """Fields of the size with the overrides applied."""
        return SIZES[self.size] | dict(self.network)

    def save(self, path: Path) -> None:
        """Writes the configuration as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote. A key that the file lacks has its default; an unknown one is a ConfigError."""
        return cls().updated(json.loads(path.read_text("utf-8")))

    @classmethod
    def build(cls, file: Path | None, assignments: Sequence[str], **given: Any) -> Self:
        """Defaults, then a YAML or JSON file, then `key=value` assignments, then what the command line gave.

        Raises ConfigError for an unknown key, a malformed assignment or a value of the wrong type.
        """
        config = cls()
        if file is not None:
            try:
                values = yaml.safe_load(file.read_text("utf-8")) or {}
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise ConfigError(f"{file}: {error}") from error
            if not isinstance(values, Mapping):
                raise ConfigError(f"{file} must hold `key: value` pairs, not a {type(values).__name__}")
            config = config.updated(values)
        values = {}
        for assignment in assignments:
            key, equals, value = assignment.partition("=")
            if not equals:
                raise ConfigError(f"--set {assignment!r} is not key=value")
            try:
                values[key.strip()] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ConfigError(f"--set {assignment!r}: {value!r} is not a value") from error
        return config.updated(values).updated({k: v for k, v in given.items() if v is not None})

    def updated(self, values: Mapping[str, Any]) -> Self:
        """A copy with some keys changed; `network.<field>` reaches into the network."""
        own = {f.name: f for f in fields(self)}
        changed: dict[str, Any] = {}
        network = dict(self.network)
        for key, value in _flat(values).items():
            name = key.removeprefix("network.")
            if name != key and name in NETWORK_DEFAULTS:
                network[name] = _typed(key, value, NETWORK_DEFAULTS[name])
            elif key not in own:
                raise ConfigError(_unknown(key, [*own, *(f"network.{name}" for name in NETWORK_KEYS)]))
            else:
                changed[key] = _typed(key, value, getattr(self, key))
        return replace(self, **changed, network=network)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """`network: {window: 8}` and `network.window: 8` are the same."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "network" and isinstance(value, Mapping):
            flat |= {f"network.{name}": inner for name, inner in value.items()}
        else:
            flat[str(key)] = value
    return flat


def _typed(key: str, value: Any, default: Any) -> Any:
    wanted = type(default)
    if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # YAML reads 1e-3 as a string
            return float(value)
    if not isinstance(value, wanted) or isinstance(value, bool) is not isinstance(default, bool):
        raise ConfigError(f"{key} must be {wanted.__name__}, got {value!r}")
    return value


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown configuration key {key!r}{hint}"
