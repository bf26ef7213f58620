"""The settings of an increment, beside those of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from model.data.dataset import Sequences
from model.errors import ConfigError
from model.training.config import TrainConfig
from model.training.config_values import flattened, parse_assignments, read_file
from model.training.method_settings import OF_A_FIRST_TRAINING
from model.training.run_folder import Run

# Settings that the tokens, the shape of the network or the meaning of the held-out part follow from.
FIXED = (
    "size", "encoder", "gpt2", "network", "split", "tokenizer", "code_levels", "code_size", "content_weight", "text",
    "vectors", "item_init", "repeats",
)  # fmt: skip
# What changes where a run is not itself an increment: a lower and shorter course, because the weights are good already.
RATE = 0.25
EPOCHS, PATIENCE, WARMUP_STEPS = 3, 2, 20
# New events that each of the two held-out parts gets: a tenth, or so many where a tenth is less, at most a quarter.
HELD_OUT, HELD_OUT_EVENTS, HELD_OUT_MOST = 0.1, 1000, 0.25


@dataclass(frozen=True)
class IncrementSettings:
    """How a run is gone on from.

    Attributes:
        keep_encoder: Whether the encoder and the rows of old items stay as they are, and with them every state.
        strength: Strength of the elastic weight consolidation as a multiple of the Bayesian one; 0: none; None: by
            rule.
        replay: Share of the old sequences that each epoch goes over again; 0: none.
    """

    keep_encoder: bool = False
    strength: float | None = None
    replay: float = 0.05

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength < math.inf:
            raise ConfigError(f"--ewc must be auto or a number, 0 or more, got {self.strength!r}")
        if not 0 <= self.replay <= 1:
            raise ConfigError(f"--replay must be between 0 and 1, got {self.replay!r}")

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, for `run.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned; other entries are left alone."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


def increment_config(
    run: Run,
    log: Sequences,
    new_from_ms: int,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    seed: int | None = None,
) -> TrainConfig:
    """Returns the configuration of an increment: that of the run, a lower and shorter course, and what was given.

    Args:
        run: The run that is gone on from.
        log: Old and new events.
        new_from_ms: When the new ones begin; a split by time holds out new events alone.
        file: YAML or JSON file of settings.
        assignments: `key=value` of each `--set`.
        seed: Seed of everything random; None: that of the run.

    Raises:
        ConfigError: A setting cannot change, is unknown, or has a value that is not allowed.
    """
    given = {} if file is None else dict(flattened(read_file(file)))
    given |= dict(flattened(parse_assignments(assignments)))
    for name in given:
        if name.partition(".")[0] in FIXED:
            raise ConfigError(
                f"{name} cannot change in an increment: {run.folder} was trained with its own; leave it out, or train "
                "anew without --init"
            )
    config = run.config
    if run.increment is None:
        config = replace(
            config,
            learning_rate=config.learning_rate * RATE,
            max_epochs=min(config.max_epochs, EPOCHS),
            patience=min(config.patience, PATIENCE),
            warmup_steps=min(config.warmup_steps, WARMUP_STEPS),
        )
    if config.split == "time":
        share = _held_out_share(log, new_from_ms)
        config = replace(config, valid_share=share, test_share=share)
    methods = {name: value for name, value in config.methods.items() if name not in OF_A_FIRST_TRAINING}
    config = replace(config, methods=methods).updated(given)
    return config if seed is None else replace(config, seed=seed)


def _held_out_share(log: Sequences, new_from_ms: int) -> float:
    """Returns the share of each held-out part of a split by time that holds out new events alone."""
    new = int((log.time_ms >= new_from_ms).sum())
    each = max(1, int(min(max(HELD_OUT * new, HELD_OUT_EVENTS), HELD_OUT_MOST * new)))
    return each / max(1, log.n_events)
