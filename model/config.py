"""What a training run is: one frozen configuration, saved beside the weights and read back strictly."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from model.network import SIZES, NetworkConfig

NETWORK_KEYS = {f.name for f in fields(NetworkConfig)} - {
    "n_items", "code_sizes", "n_types", "n_context_rows", "n_slots", "has_time",
}  # fmt: skip


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what is allowed."""


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of a run. `network` overrides single fields of the chosen `size`."""

    size: str = "small"
    network: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["leave_one_out", "time"] = "leave_one_out"
    tokenizer: Literal["atomic", "hierarchical", "semantic"] = "semantic"
    code_levels: int = 2
    code_size: int = 0  # 0: chosen from the number of items
    content_weight: float = 0.5
    max_length: int = 200
    batch_tokens: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema: float = 0.98
    codes_weight: float = 0.5
    dense_weight: float = 1.0
    negatives: int = -1  # 0: the full softmax; −1: the full one for small catalogues, else a sampled one
    label_smoothing: float = 0.0
    item_dropout: float = 0.02  # inputs replaced by the unknown item
    gap_known: float = 0.5
    features_known: float = 0.5
    control_known: float = 0.1
    max_epochs: int = 100
    patience: int = 8
    validation_users: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size {self.size!r} is unknown; choose one of {', '.join(SIZES)}")
        for key in self.network:
            if key not in NETWORK_KEYS:
                raise ConfigError(_unknown(f"network.{key}", [f"network.{name}" for name in NETWORK_KEYS]))
        if self.split not in ("leave_one_out", "time"):
            raise ConfigError(f"split {self.split!r} is unknown; choose leave_one_out or time")
        if self.tokenizer not in ("atomic", "hierarchical", "semantic"):
            raise ConfigError(f"tokenizer {self.tokenizer!r} is unknown; choose atomic, hierarchical or semantic")

    def network_values(self) -> dict[str, Any]:
        """Fields of the size with the overrides applied."""
        return SIZES[self.size] | dict(self.network)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
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
            except (OSError, yaml.YAMLError) as error:
                raise ConfigError(f"{file}: {error}") from error
            config = config.updated(values)
        values = {}
        for assignment in assignments:
            key, equals, value = assignment.partition("=")
            if not equals:
                raise ConfigError(f"--set {assignment!r} is not key=value")
            values[key.strip()] = yaml.safe_load(value)
        return config.updated(values).updated({k: v for k, v in given.items() if v is not None})

    def updated(self, values: Mapping[str, Any]) -> Self:
        """A copy with some keys changed; `network.<field>` reaches into the network."""
        own = {f.name: f for f in fields(self)}
        changed: dict[str, Any] = {}
        network = dict(self.network)
        for key, value in values.items():
            if key == "network" and isinstance(value, Mapping):
                network.update(value)
            elif key.startswith("network."):
                network[key.removeprefix("network.")] = value
            elif key not in own:
                raise ConfigError(_unknown(key, [*own, *(f"network.{name}" for name in NETWORK_KEYS)]))
            else:
                changed[key] = _typed(key, value, getattr(self, key))
        return replace(self, **changed, network=network)


def _typed(key: str, value: Any, default: Any) -> Any:
    wanted = type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or isinstance(value, bool) is not isinstance(default, bool):
        raise ConfigError(f"{key} must be {wanted.__name__}, got {value!r}")
    return value


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown configuration key {key!r}{hint}"
