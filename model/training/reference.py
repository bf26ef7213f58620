"""Writes docs/training.md from the code: `python -m model.training.reference`. A test checks that it is up to date."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from model.data.long_histories import ITEM_CF_EVENTS, REPEAT_EVENTS
from model.network.config import SIZES, NetworkConfig, Setting, setting_of
from model.training.config import CHOICES, OPEN, TrainConfig
from model.training.defaults import RULES
from model.training.increment.consolidation import FLOOR
from model.training.increment.replay import CONTEXT, REPLAYED_MOST
from model.training.increment.settings import EPOCHS, FIXED, HELD_OUT_EVENTS, PATIENCE, RATE, WARMUP_STEPS
from model.training.increment.strength import STRENGTHS
from model.training.method_settings import MethodSettings
from model.training.time_limit import EVALUATION_SHARE, FEWEST_USERS, TUNING_SHARE, VALIDATION_SHARE
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.common.markdown import markdown_table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "training.md"

# Heading → settings, in the order of the page. A test checks that every setting is in one of them.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": ("size", "encoder", "gpt2", "network", "methods"),
    "Data": ("split", "validation_users", "valid_share", "test_share", "repeats", "max_length"),
    "Items": ("tokenizer", "code_levels", "code_size", "content_weight", "text", "vectors", "item_init"),
    "Loss": ("codes_weight", "dense_weight", "negatives", "label_smoothing", "type_weights", "behaviour_losses"),
    "Optimiser": (
        "learning_rate", "warmup_steps", "decay", "batch_tokens", "weight_decay", "clip_norm", "ema", "item_dropout",
    ),
    "Context": ("features_known", "scene_known", "control_known", "gap_known", "styles", "prompt_for"),
    "Length and repeatability": ("max_epochs", "patience", "seed", "threads"),
    "Several processes": ("shard_items",),
}  # fmt: skip

_INTRODUCTION = """\
# Training settings

Written by `python -m model.training.reference`; do not edit by hand.

`gpt4rec train --data DATA --out RUN` needs none of these: the defaults are chosen so that a first training works, and
some follow from the data. Give a setting on the command line or in a file. `--set` wins over the file, `--seed` over
both:

```sh
gpt4rec train --data DATA --out RUN --set max_epochs=40 --set network.window=100
gpt4rec train --data DATA --out RUN --config settings.yaml
```

`settings.yaml`:

```yaml
max_epochs: 40
network:
  window: 100
```

An unknown setting, a value of the wrong type or a number out of bounds ends the command with exit code 2, before the
data is read. `RUN/config.json` keeps the settings of a run, with those that followed from the data; `--resume` goes on
with them. What a training reads of a data set is in [data.md](data.md#what-a-training-reads).
"""
_TIME = f"""\
## Time

`--max-minutes` bounds the whole command: reading the data, fitting item tokens and vectors, tuning item-CF, the epochs
with their validations, and the evaluation. Earlier parts of a resumed run count up to their last epoch. After the
preparation the command times a few users, keeps time for a validation and the evaluation, and gives the rest to the
epochs; the learning rate falls over that rest.

- Of the time left after the preparation, tuning item-CF may take {TUNING_SHARE:.0%}, a validation
  {VALIDATION_SHARE:.0%} and the evaluation {EVALUATION_SHARE:.0%}. What needs more is cut: fewer settings of item-CF
  are tried, fewer users are asked, but never fewer than {FEWEST_USERS}. `metrics.json` has their number.
- Not cut: the preparation, one setting of item-CF, and one batch, so that there are weights. If they need more than
  the limit, the command says how long they took and how many minutes to give.

Without `--max-minutes` nothing is cut. `gpt4rec export` has no limit: it tunes item-CF in full, fits all other
[signals](signals.md), and learns their weights.
"""
_LONG = f"""\
## Long histories

A robot can have as many events as all other users together. No step needs memory or time for pairs of all of them:

- Training cuts a history into chunks of `max_length`, and the encoder reads no more than its receptive field.
- Item-CF counts the newest {ITEM_CF_EVENTS:,} events of a user, repeat purchase the newest {REPEAT_EVENTS}.
- The parity gate of `gpt4rec export` compares a history on its newest events, twice as many as the encoder reads.
- Lists with many exclusions are decoded few at a time.

`train` and `export` say how many histories were cut, and how long the longest is. All other figures count every event,
popularity too: leave a robot out of the import with `--null`.
"""
_INCREMENTS = f"""\
## Increments

`gpt4rec train --init RUN --data NEW --out OTHER` goes on from a finished run, with the new events, users and items of
NEW. Its result is a run like any other; `--resume` continues one that was interrupted.

```sh
gpt4rec train --init runs/day --data data/now --out runs/hour                            # old and new events
gpt4rec train --init runs/day --data data/hour --old data/day --out runs/hour            # new events alone
gpt4rec train --init runs/day --data data/now --out runs/hour --keep-encoder             # every state stays
gpt4rec train --init runs/day --data log --out runs/hour                                 # what a service has logged
```

- **Data.** NEW holds old and new events. Where it holds the new ones alone, `--old` gives the data of the run; both
  are joined in `OTHER/data`. New are the events that the run did not train on, held-out ones included: those from the
  beginning of its validation part on (split by time), or after its last event, and the last two of each user (leave
  one out). Later arrivals with older times wait for the next whole training. It needs times. Ids must be those of the
  run: data that lacks more than half of its items is refused. The events of a [log](loop.md#training-on-the-log) are
  added to the data of the run, or to `--old`.
- **What is held out.** By time: new events alone, for validation and test each a tenth of them, but
  {HELD_OUT_EVENTS:,} where that is less, at most a quarter.
- **Settings** are those of the run, with {RATE:g} times its learning rate, at most {EPOCHS} epochs, a patience of
  {PATIENCE} and {WARMUP_STEPS} steps of warm-up; `--set` changes them. What tokens, shape and held-out part follow
  from cannot change: {", ".join(f"`{name}`" for name in FIXED)}.
- **New items** get tokens from the fitted tokenizer, which is not fitted again. Where the cells near an item's content
  are full, it gets a path in the emptiest cell, and the command says how many did; where no path is free at all, the
  increment is refused. Their vectors start from items with similar content, else from the items beside them in
  histories, else from the unknown item. Vocabularies only grow.
- **Old weights are held** (`--ewc`) by elastic weight consolidation: each by the Fisher information of the old data,
  which every training leaves in `RUN/memory.safetensors`, and at least by {FLOOR:g} of the mean of its tensor. Without
  that floor the vectors of rarely seen items would drift: their information is nearly zero, and Adam makes full steps
  of the smallest gradients. 1 is the strength that follows from Bayes; `auto` tries
  {", ".join(f"{strength:g}" for strength in STRENGTHS)}, one epoch each, and takes the strongest that validation cannot
  tell from the best. Increments of increments keep the choice.
- **Old sequences are gone over again** (`--replay`): a sample of this share, drawn anew for each epoch, with at most
  {REPLAYED_MOST:g} times as many events as are new. New events are learned behind the last {CONTEXT} before them.
- **`--keep-encoder`** trains the decoder and the rows of new items alone. States stay valid, except those of users
  whose history has an item that was unknown until now.

What an increment costs and keeps is in [loop.md](loop.md#incremental-training).

## Several processes

`torchrun -m service.cli train …` trains with several processes, on CPUs or on a card each: see
[fleet.md](fleet.md#training-on-several-processes). `batch_tokens` is then of the batch that they share.
"""
_NETWORK = """\
## Network

Set as `network.<field>`. A default marked *size* is that of `small`; the other sizes are [below](#sizes).
"""
_METHODS = """\
## Methods

Ways of training beside the default one, each a file of `model/training/methods/`, which names its source. All are off
by default; set them as `methods.<field>`. An increment goes on without pretraining, teacher, truncation, random
clicks and a kept backbone. `python -m loadtests.quality.methods` measures each against the defaults.

A line for each; `--set` may be given several times to use some together.

```sh
gpt4rec train --data DATA --out RUN --set methods.pretrain_epochs=5 --set max_epochs=25
gpt4rec train --data DATA --out RUN --set methods.contrast=0.1
gpt4rec train --data DATA --out RUN --set methods.augment=0.3
gpt4rec train --data DATA --out RUN --set methods.scheduled_sampling=0.25
gpt4rec train --data DATA --out RUN --set methods.diversity=0.1
gpt4rec train --data DATA --out RUN --set methods.negatives=batch_mixed
gpt4rec train --data DATA --out RUN --set methods.keep_events=100 --set methods.keep=important
gpt4rec train --data DATA --out RUN --set methods.random_clicks=0.1
gpt4rec train --data DATA --out RUN --set methods.adversarial=1
gpt4rec train --data DATA --out RUN --set methods.teacher=runs/base
gpt4rec train --data DATA --out RUN --set methods.item_teacher=0.1
gpt4rec train --data DATA --out RUN --set methods.meta_start=0.1
gpt4rec train --data DATA --out RUN --set methods.precision=bfloat16
gpt4rec train --data DATA --out RUN --set encoder=window_attention --set network.pattern=routing \\
    --set methods.routing_balance=0.01
gpt4rec train --data DATA --out RUN --set methods.backbone=runs/large --set methods.adapter=16
```
"""
_SIZES = """\
## Sizes

What `size` sets. A field that is not listed keeps its default.
"""
_HEAD = ("Setting", "Type", "Default", "Bounds", "Meaning", "When to change it")


def page() -> str:
    """Returns the whole page."""
    parts = [_INTRODUCTION, _TIME, _LONG, _INCREMENTS]
    own = {f.name: f for f in fields(TrainConfig)}
    hints = get_type_hints(TrainConfig)
    for title, names in SECTIONS.items():
        parts += [f"## {title}\n", markdown_table(_HEAD, (_row(name, own[name], hints[name]) for name in names))]
    hints = get_type_hints(NetworkConfig)
    network = [f for f in fields(NetworkConfig) if setting_of(f) is not None]
    parts += [_NETWORK, markdown_table(_HEAD, (_row(f"network.{f.name}", f, hints[f.name]) for f in network))]
    methods, hints = fields(MethodSettings), get_type_hints(MethodSettings)
    parts += [_METHODS, markdown_table(_HEAD, (_row(f"methods.{f.name}", f, hints[f.name]) for f in methods))]
    parts += [_SIZES, markdown_table(("Field", *(f"`{size}`" for size in SIZES)), _sizes())]
    return "\n".join(parts)


def _row(name: str, declared: Field[Any], hint: Any) -> Sequence[str]:
    setting = setting_of(declared)
    if setting is None:
        raise ValueError(f"{name} has no description; declare it with model.network.config.setting")
    return f"`{name}`", _type(name, hint), _default(name, declared), _bounds(setting), setting.meaning, setting.change


def _type(name: str, hint: Any) -> str:
    choices = CHOICES.get(name) or (get_args(hint) if get_origin(hint) is Literal else ())
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if name in OPEN:
        return "bool or null"
    return "mapping" if get_origin(hint) is Mapping else str(hint.__name__)


def _default(name: str, declared: Field[Any]) -> str:
    if declared.default in (MISSING, ""):
        return "–"
    value = "null" if declared.default is None else declared.default
    if isinstance(value, bool):
        value = str(value).lower()
    by_size = " (*size*)" if name.removeprefix("network.") in SIZES["small"] and name.startswith("network.") else ""
    if name not in RULES:
        return f"`{value}`{by_size}"
    is_open = declared.default in (None, -1, 0)  # stands for the rule, and for no value of its own
    return f"`{value}`{by_size}{':' if is_open else ';'} {RULES[name]}"


def _bounds(setting: Setting) -> str:
    if setting.most < math.inf:
        return f"{_number(setting.least)} to {_number(setting.most)}"
    return f"≥ {_number(setting.least)}" if setting.least > -math.inf else "–"


def _number(value: float) -> str:
    return "2⁶³ − 1" if value == 2**63 - 1 else f"{value:g}"


def _sizes() -> Iterable[Sequence[str]]:
    names = list(dict.fromkeys(name for size in SIZES.values() for name in size))
    defaults = {f.name: f.default for f in fields(NetworkConfig)}
    for name in names:
        yield f"`network.{name}`", *(str(size.get(name, defaults[name])) for size in SIZES.values())


def main() -> None:
    """Writes the page."""
    write_aside(PAGE, page().encode())


if __name__ == "__main__":
    run_command(main)
