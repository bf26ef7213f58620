"""Settings of the training methods in `model/training/methods/`; all are off by default, and training is as before.

A user sets them as `methods.<field>` of a training configuration. To add a method, see `model/training/methods/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from model.errors import ConfigError
from model.network.config import setting, setting_of


@dataclass(frozen=True)
class MethodSettings:
    """One field or two for each method, each with its description."""

    negatives: Literal["mixed", "uniform", "popular", "batch", "batch_mixed"] = setting(
        "mixed",
        "Where the negatives of a sampled softmax come from. `mixed`: half uniform, half by popularity. `uniform`, "
        "`popular`: all of them so. `batch`: the targets of the batch. `batch_mixed`: half of them so, half `mixed`.",
        "To compare; scores are corrected for how often each source draws an item. Another source than `mixed` samples "
        "where the rule of `negatives` would take the full softmax.",
    )
    augment: float = setting(
        0.0,
        "Share of the training sequences of a batch that are cropped, masked or reordered.",
        "Where users have few events.",
        least=0,
        most=1,
    )
    contrast: float = setting(
        0.0,
        "Weight of the sequence contrast: two cropped, masked or reordered views of a history are drawn together, "
        "those of others apart.",
        "0.1 where users have few events.",
        least=0,
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Type of the matrix products; weights, sums and losses stay in float32. `auto`: bfloat16 on CUDA, float32 on a "
        "CPU.",
        "`bfloat16` on a CPU that multiplies it in hardware (AMX, AVX512-BF16).",
    )
    pretrain_epochs: int = setting(
        0,
        "First epochs, of `max_epochs`, in which the network is pretrained without a next item: masked items, their "
        "attributes, sequence contrast.",
        "3 to 10 where there are few events, together with `max_epochs`.",
        least=0,
        most=10_000,
    )
    pretrain_attribute: float = setting(
        0.2, "Weight of the masked attributes in pretraining; masked items have 1.", "0 without attributes.", least=0
    )
    pretrain_contrast: float = setting(0.1, "Weight of the sequence contrast in pretraining.", "To compare.", least=0)
    scheduled_sampling: float = setting(
        0.0,
        "Share of the tokens of a path that the decoder reads from its own predictions at the end of training; it "
        "grows from 0.",
        "0.25 where the beam misses items that the dense score ranks first.",
        least=0,
        most=1,
    )
    teacher: str = setting(
        "",
        "Run folder of a network of the same data, whose softmax over items this one learns as well.",
        "To train `small` from a finished `base`.",
    )
    distil: float = setting(0.5, "Weight of what the teacher says; of the targets: 1.", "With `teacher`.", least=0)
    distil_temperature: float = setting(
        2.0, "Temperature of both distributions in distillation.", "With `teacher`.", least=1e-3
    )
    item_teacher: float = setting(
        0.0,
        "Weight with which the vectors of rarely seen items are drawn to popular items of similar content.",
        "Where many items have few events and their content says what they are.",
        least=0,
    )
    diversity: float = setting(
        0.0,
        "λ of the diversity regulariser −λ Σ log(1 − sim) over pairs of queries of a batch.",
        "Where lists of different users are too alike. Accuracy may fall.",
        least=0,
    )
    routing_balance: float = setting(
        0.0,
        "Weight of the load balance of `network.pattern=routing`: no few events should be what all others read.",
        "0.01 with `routing`.",
        least=0,
    )
    keep_events: int = setting(
        0,
        "Events of each user that training keeps; 0: all.",
        "To bound the time of training on long histories.",
        least=0,
        most=10**9,
    )
    keep: Literal["newest", "important"] = setting(
        "newest",
        "Which events `keep_events` keeps. `important`: the newest quarter, and a sample of the others that prefers "
        "recent events, rare items and purchases.",
        "`important` where histories are long and tastes old.",
    )
    random_clicks: float = setting(
        0.0,
        "Share of random events that is added to the training sequences.",
        "To measure what noise in the log costs.",
        least=0,
        most=10,
    )
    adversarial: float = setting(
        0.0,
        "Weight of the loss under the worst small change of the item vectors.",
        "Against overfitting; a step takes more than twice as long.",
        least=0,
    )
    adversarial_size: float = setting(
        0.05, "Length of that change of a vector, relative to the mean length of item vectors.", "With `adversarial`.",
        least=0,
    )  # fmt: skip
    meta_start: float = setting(
        0.0,
        "Weight of the meta-learned start of new items: the unknown item's vector learns to be one from which a step "
        "on a few events leads far.",
        "Where items without content come in often.",
        least=0,
    )
    meta_rate: float = setting(0.5, "Length of that step.", "With `meta_start`.", least=0)
    backbone: str = setting(
        "",
        "Run folder of a network of another shop. Its encoder is kept as it is; adapters beside its feed-forward "
        "layers are learned, and this shop's items, tokens and decoder. The shape of the encoder follows from it. A "
        "finished run does not need it.",
        "Where another shop has far more events.",
    )
    adapter: int = setting(
        16,
        "Units of the adapter beside each feed-forward layer of `backbone`; `network.d_ff` grows by them.",
        "With `backbone`; 0 learns none.",
        least=0,
        most=65_536,
    )

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"methods.{name} {value!r} is unknown; choose one of {', '.join(choices)}")
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                allowed = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
                raise ConfigError(f"methods.{name} must be {allowed}, got {value!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Returns the settings with some of them changed.

        Raises:
            ConfigError: A value is out of bounds or none of the choices.
        """
        return cls(**values)


METHOD_SETTINGS = {f.name: declared for f in fields(MethodSettings) if (declared := setting_of(f)) is not None}
METHOD_DEFAULTS = {f.name: f.default for f in fields(MethodSettings)}
_HINTS = get_type_hints(MethodSettings)
CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(_HINTS[name]) for name in METHOD_SETTINGS if get_origin(_HINTS[name]) is Literal
}
LIMITS: dict[str, tuple[float, float]] = {
    name: (declared.least, declared.most)
    for name, declared in METHOD_SETTINGS.items()
    if declared.least > -math.inf or declared.most < math.inf
}
# Settings that make sense in a training that begins anew alone; an increment goes on without them.
OF_A_FIRST_TRAINING = frozenset({"pretrain_epochs", "teacher", "keep_events", "random_clicks", "backbone"})
