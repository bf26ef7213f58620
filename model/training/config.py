"""The settings of a training: one frozen configuration, saved beside the weights and read back strictly.

To add a setting, declare a field here with `setting` (or in `model/network/config.py` for the network), use it, and run
`python -m model.training.reference`. A default that follows from the data is a rule in `model/training/defaults.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from model.errors import ConfigError
from model.network.config import SIZES, setting, setting_of
from model.network.encoders.registry import ENCODERS
from model.training.config_checks import (
    NETWORK_DEFAULTS,
    NETWORK_KEYS,
    NETWORK_SETTINGS,
    check_behaviours,
    check_beside_items,
    check_network,
    check_type_weights,
)
from model.training.config_values import flattened, parse_assignments, read_file, typed, unknown_key
from model.training.method_settings import METHOD_DEFAULTS, MethodSettings
from service.common.atomic_files import write_aside

StyleSource = Literal["none", "attributes", "brand"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training, each with its description. `network` overrides single fields of the chosen `size`."""

    size: str = setting(
        "small",
        "Shape of the network; see [Sizes](#sizes).",
        "`tiny` to try things out, `base` and `large` for millions of events and a GPU. The rules that follow from the "
        "data hold for `small` alone.",
        choices=tuple(SIZES),
    )
    encoder: str = setting(
        "gpt4rec",
        "The part of the network that turns a history into a hidden state.",
        "To compare. `gpt4rec`, `window_attention`, `gated_linear`, `compressive`, `memory_bank` and `hierarchy` carry "
        "their state from event to event, all but the first two with a memory of events that the log no longer keeps; "
        "the others encode a history anew for each list.",
        choices=tuple(ENCODERS),
    )
    gpt2: str = setting(
        "",
        "Folder of a GPT-2 (`config.json` and `model.safetensors`) whose weights the encoder `gpt2rec` starts from; "
        "empty: random ones. It decides `network.d_model`, `heads`, `d_head`, `d_ff` and the most `layers`. A finished "
        "run does not need it.",
        "To compare. Give a lower `learning_rate` with it.",
    )
    network: Mapping[str, Any] = setting(
        {},
        "Single fields of the network's shape, as `network.<field>`; they win over `size`.",
        "See [Network](#network).",
    )
    methods: Mapping[str, Any] = setting(
        {}, "Training methods, as `methods.<field>`; all are off by default.", "See [Methods](#methods)."
    )
    split: Literal["leave_one_out", "time"] = setting(
        "leave_one_out",
        "What is held out: the last two events of each user, or the newest events by time, `valid_share` and "
        "`test_share` of them.",
        "`time` to measure what a service would have served at one moment. It needs timestamps.",
    )
    tokenizer: Literal["atomic", "hierarchical", "semantic"] = setting(
        "semantic",
        "How an item becomes a path of tokens. `atomic`: a token of its own. `hierarchical`: its categories. "
        "`semantic`: codes from co-occurrence in histories and from content.",
        "`atomic` for a few thousand items at most, `hierarchical` where categories describe the items well.",
    )
    code_levels: int = setting(
        2,
        "Levels of codes of the semantic tokenizer, before the tokens that make a path unique.",
        "3 for catalogues of more than about 100,000 items.",
        least=1,
        most=8,
    )
    code_size: int = setting(
        0, "Codes in each level of the semantic tokenizer; 0: by rule.", "Rarely.", least=0, most=65_536
    )
    content_weight: float = setting(
        0.5,
        "Weight of content (categories, brands, attributes, texts) against co-occurrence in the semantic codes.",
        "More where items have few events, 0 where their descriptions are poor.",
        least=0,
    )
    text: Literal["none", "codes", "items"] = setting(
        "none",
        "Use of item texts. `codes`: they place the codes. `items`: they also stand in for the embeddings of items "
        "that training rarely saw.",
        "`items` if new items come with texts. It needs the sentence encoder (`make texts`).",
    )
    vectors: Literal["none", "codes", "items"] = setting(
        "none",
        "Use of the vectors that came with the data set (`gpt4rec data import --vectors`), as of texts in `text`. They "
        "are a signal of the ranker as well.",
        "`items` where vectors say more than events do, such as those of images for new items.",
    )
    item_init: Literal["collaborative", "random"] = setting(
        "collaborative",
        "What item embeddings start from: co-occurrence vectors, or random ones.",
        "`random` to compare.",
    )
    shard_items: bool = setting(
        False,
        "Whether each process of a training has only its part of the item table, with its gradient, its average and "
        "its optimiser state. It needs the sampled softmax; see "
        "[fleet.md](fleet.md#an-item-table-that-does-not-fit).",
        "Where the table of a large catalogue does not fit into the memory of one process.",
    )
    max_length: int = setting(
        200,
        "Events of a training chunk; longer histories are cut.",
        "Less if memory is short. For `gpt4rec` it must exceed `network.window`.",
        least=2,
    )
    batch_tokens: int = setting(
        1024,
        "Positions of a batch, padding included.",
        "More on a GPU, together with `learning_rate`. Less for small logs, to take more steps in an epoch.",
        least=1,
    )
    learning_rate: float = setting(
        2e-3, "Peak learning rate of AdamW.", "Less if the loss is not finite or jumps.", least=0
    )
    weight_decay: float = setting(
        0.05, "Weight decay of AdamW; of matrices only.", "More against overfitting.", least=0
    )
    warmup_steps: int = setting(
        100, "Steps over which the learning rate rises from 0.", "More for large networks.", least=0
    )
    decay: Literal["linear", "none"] = setting(
        "linear",
        "How the learning rate falls: linearly, over `max_epochs` or `--max-minutes`, whichever ends first, or not.",
        "`none` to train on with `--resume` for longer than planned.",
    )
    clip_norm: float = setting(
        1.0,
        "Largest norm of the gradient of a step; a larger one is scaled down.",
        "Less if the loss jumps.",
        least=1e-6,
    )
    ema: float = setting(
        0.98,
        "Share of the averaged weights that each step keeps. The average is validated and exported.",
        "More for small batches, 0 for the last weights as they are.",
        least=0,
        most=1,
    )
    codes_weight: float = setting(
        0.25,
        "Weight of the tokens' cross-entropy in the loss.",
        "More if the beam misses items that the dense score ranks first.",
        least=0,
    )
    dense_weight: float = setting(
        1.0, "Weight of the softmax over items in the loss.", "Rarely; `codes_weight` is relative to it.", least=0
    )
    negatives: int = setting(
        -1,
        "Items sampled for the softmax, shared by a batch. 0: the full softmax; −1: by rule.",
        "More for better estimates on large catalogues, 0 if the full softmax fits into memory and time.",
        least=-1,
    )
    label_smoothing: float = setting(
        0.0,
        "Label smoothing of the tokens' cross-entropy and of the full softmax.",
        "0.1 if the model is overconfident.",
        least=0,
        most=1,
    )
    item_dropout: float = setting(
        0.02,
        "Share of input items that training replaces by the unknown item.",
        "More if histories contain many items that are newer than the model.",
        least=0,
        most=1,
    )
    gap_known: float = setting(
        0.5,
        "Share of positions that know the time between the last event and the target.",
        "0 if requests come without a time.",
        least=0,
        most=1,
    )
    features_known: float = setting(
        0.5, "Share of positions that know each user feature.", "As often as requests carry them.", least=0, most=1
    )
    scene_known: float = setting(
        0.5, "Share of positions that know the scene.", "As often as requests carry it.", least=0, most=1
    )
    control_known: float = setting(
        0.1,
        "Share of positions that know the target's category, its price band and its style.",
        "More if callers often ask for a category, a price band or a style.",
        least=0,
        most=1,
    )
    styles: StyleSource = setting(  # noqa: RUF009 - a dataclass field
        "none",
        "The column of the item table whose values are style codes, which a request can ask for as `style`: the 256 "
        "values of the most items.",
        "`attributes` or `brand` where callers ask for such items, without excluding others as a filter would.",
    )
    prompt_for: str = setting(
        "scene",
        "The slot of the context whose values have soft prompts (`network.prompts`): `scene`, or a user feature, such "
        "as a segment that is stored with the user.",
        "With `network.prompts`.",
    )
    type_weights: Mapping[str, float] = setting(
        {},
        "Weights of targets in the loss by event type; 1 for a type that is not named.",
        "Where some events matter less: `type_weights={purchase: 1, view: 0.25}`.",
    )
    behaviour_losses: Mapping[str, float] = setting(
        {},
        "Weights of the losses by behaviour of `encoder=behaviours`, by stream (`click`, `purchase`, `search`): the "
        "state of a stream predicts the next item of its own kind, that of searches the next item of any. 0 for a "
        "stream that is not named.",
        "0.1 to 0.5 for a rare behaviour, so that its stream learns from its own targets.",
    )
    max_epochs: int = setting(
        20, "Largest number of epochs.", "More if validation NDCG@10 still rises at the last epoch.", least=1
    )
    patience: int = setting(
        8, "Epochs without a better validation NDCG@10 after which training stops.", "Less to save time.", least=0
    )
    repeats: bool | None = setting(
        None,
        "Whether lists hold items of the history: in validation and evaluation, and in the service where a request "
        "leaves `exclude_seen` out. `null`: by rule.",
        "`true` or `false` where you know better than the log what lists are for.",
    )
    validation_users: int = setting(
        -1,
        "Users whose second to last event is held out for validation, in a leave-one-out split. 0: all; −1: by rule.",
        "0 to follow the protocol of published tables.",
        least=-1,
    )
    valid_share: float = setting(
        0.1,
        "Share of the events between the boundaries of training and test, in a split by time.",
        "Less for large logs, to train on newer events.",
        least=1e-9,
        most=0.45,
    )
    test_share: float = setting(
        0.1,
        "Share of the events, the newest, that the test asks for, in a split by time.",
        "Less for large logs, to train on newer events.",
        least=1e-9,
        most=0.45,
    )
    threads: int = setting(
        1,
        "Threads on a CPU; 0: one for each core.",
        "More for large networks. A resumed run then equals an uninterrupted one except for rounding.",
        least=0,
        most=1024,
    )
    seed: int = setting(0, "Seed of everything random.", "To measure how much figures vary.", least=0, most=2**63 - 1)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"{name} {value!r} is unknown; choose {_either(choices)}")
        for key in self.network:
            if key not in NETWORK_KEYS:
                raise ConfigError(unknown_key(f"network.{key}", [f"network.{name}" for name in NETWORK_KEYS]))
        for key in self.methods:
            if key not in METHOD_DEFAULTS:
                raise ConfigError(unknown_key(f"methods.{key}", [f"methods.{name}" for name in METHOD_DEFAULTS]))
        methods = self.method_settings()
        if methods.negatives != "mixed" and self.negatives == 0:
            raise ConfigError("methods.negatives has no effect with negatives 0, the full softmax; leave negatives out")
        for name in ("text", "vectors"):
            if getattr(self, name) == "codes" and self.tokenizer != "semantic":
                raise ConfigError(
                    f"{name} codes has no effect with the {self.tokenizer} tokenizer, whose codes are not placed by "
                    f"content; choose tokenizer semantic, or {name} items"
                )
        if self.gpt2 and self.encoder != "gpt2rec":
            raise ConfigError(f"gpt2 has no effect with the encoder {self.encoder}; choose encoder gpt2rec")
        self._check_numbers()
        check_type_weights(self.type_weights)
        check_behaviours(self.behaviour_losses, self.encoder)
        check_beside_items(self.encoder, self.network_values(), methods)
        check_network(self.encoder, self.network, self.network_values(), self.max_length)

    def _check_numbers(self) -> None:
        network = self.network_values()
        for key, (least, most) in LIMITS.items():
            name = key.removeprefix("network.")
            value = getattr(self, key) if name == key else network.get(name, NETWORK_DEFAULTS[name])
            if not least <= value <= most:
                allowed = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
                raise ConfigError(f"{key} must be {allowed}, got {value!r}")

    def network_values(self) -> dict[str, Any]:
        """Returns the network fields of the chosen size with the overrides applied."""
        return SIZES[self.size] | dict(self.network)

    def method_settings(self) -> MethodSettings:
        """Returns the settings of the training methods."""
        return MethodSettings.of(self.methods)

    def save(self, path: Path) -> None:
        """Writes the configuration as JSON."""
        write_aside(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote. A key that the file lacks has its default; an unknown one is a ConfigError."""
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ConfigError(f"{path.name} holds a {type(values).__name__} instead of settings")
        return cls().updated(values)

    @classmethod
    def build(cls, file: Path | None, assignments: Sequence[str], **flags: Any) -> Self:
        """Builds a configuration from what the command line gave. Later sources win.

        Args:
            file: YAML or JSON file of settings; None for the defaults.
            assignments: `key=value` of each `--set`; the value is YAML.
            **flags: Settings with a flag of their own; None where the flag was not given.

        Raises:
            ConfigError: A key is unknown, an assignment is malformed, or a value has the wrong type or is out of
                bounds.
        """
        config = cls() if file is None else cls().updated(read_file(file))
        config = config.updated(parse_assignments(assignments))
        return config.updated({key: value for key, value in flags.items() if value is not None})

    def updated(self, values: Mapping[str, Any]) -> Self:
        """Returns a copy with some settings changed; `network.<field>` and `methods.<field>` reach into the two."""
        own = {f.name: f for f in fields(self)}
        changed: dict[str, Any] = {}
        network, methods = dict(self.network), dict(self.methods)
        for key, value in flattened(values).items():
            name, method = key.removeprefix("network."), key.removeprefix("methods.")
            if name != key and name in NETWORK_DEFAULTS:
                network[name] = typed(key, value, NETWORK_DEFAULTS[name])
            elif method != key and method in METHOD_DEFAULTS:
                methods[method] = typed(key, value, METHOD_DEFAULTS[method])
            elif key not in own:
                nested = [f"network.{n}" for n in NETWORK_KEYS] + [f"methods.{n}" for n in METHOD_DEFAULTS]
                raise ConfigError(unknown_key(key, [*own, *nested]))
            elif key in OPEN:
                changed[key] = value if value is None else typed(key, value, True)
            else:
                changed[key] = typed(key, value, getattr(self, key))
        return replace(self, **changed, network=network, methods=methods)


SETTINGS = {f.name: declared for f in fields(TrainConfig) if (declared := setting_of(f)) is not None}

# Setting → its names, for settings that are one of several.
CHOICES: dict[str, tuple[str, ...]] = {
    name: declared.choices or get_args(get_type_hints(TrainConfig)[name])
    for name, declared in SETTINGS.items()
    if declared.choices or get_origin(get_type_hints(TrainConfig)[name]) is Literal
}

# Settings that may be left open, as null, until a rule decides them.
OPEN = frozenset(name for name in SETTINGS if type(None) in get_args(get_type_hints(TrainConfig)[name]))

# Setting → smallest and largest allowed number.
LIMITS: dict[str, tuple[float, float]] = {
    name: (declared.least, declared.most)
    for name, declared in [*SETTINGS.items(), *((f"network.{name}", s) for name, s in NETWORK_SETTINGS.items())]
    if declared.least > -math.inf or declared.most < math.inf
}


def _either(choices: Sequence[str]) -> str:
    """Returns "one of a, b, c, d", or "a, b or c" for few."""
    if len(choices) > 3:
        return f"one of {', '.join(choices)}"
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
