"""The training methods by kind.

To add one, write its file beside this one, name it here, and declare its settings in `MethodSettings`
(`model/training/method_settings.py`).

    LOGS     training part → training part, before batches are cut                truncation, random clicks
    TERMS    setting that holds the weight → a class with a loss of its own       contrast, diversity, …
    SOURCES  where negatives come from (negatives.py)
    VIEWS    what augmentation and contrast make of a sequence (views.py)

Pretraining (the loss of the first epochs), scheduled sampling (the decoder's inputs), adversarial training (a second
pass) and precision have one place each in `model.training.batch_loss`; adapters stand beside the encoder of a network
that the trainer keeps as it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from model.data.dataset import Sequences
from model.training.config import TrainConfig
from model.training.methods.base import Term
from model.training.methods.random_clicks import with_random_clicks
from model.training.methods.truncation import truncated
from model.training.positions import Setup

Log = Callable[[Sequences, TrainConfig], Sequences]


def _truncated(train: Sequences, config: TrainConfig) -> Sequences:
    settings = config.method_settings()
    return truncated(train, settings.keep_events, settings.keep, config.seed)


def _random_clicks(train: Sequences, config: TrainConfig) -> Sequences:
    return with_random_clicks(train, config.method_settings().random_clicks, config.seed)


# In the order in which they are applied: clicks are noise of the log itself.
LOGS: tuple[Log, ...] = (_random_clicks, _truncated)

# Setting of the weight → module and class. A term is computed where its weight is above 0 and, if it has a second
# setting that switches it, where that is set.
TERMS: dict[str, tuple[str, str]] = {
    "routing_balance": ("routing_balance", "RoutingBalance"),  # first: others run the encoder again
    "contrast": ("contrast", "Contrast"),
    "distil": ("distillation", "Distillation"),
    "diversity": ("diversity", "Diversity"),
    "item_teacher": ("item_distillation", "ItemDistillation"),
    "meta_start": ("meta_start", "MetaStart"),
}
SWITCHES = {"distil": "teacher"}


def changed_log(train: Sequences, config: TrainConfig) -> Sequences:
    """Returns the events that a training learns from: those of the training part, unless a method changes them."""
    for change in LOGS:
        train = change(train, config)
    return train


def terms_of(setup: Setup) -> list[tuple[float, Term]]:
    """Returns the terms of the loss that the configuration asks for, with their weights.

    Raises:
        RunError: A term needs what the run does not have, such as a teacher of the same data.
    """
    settings = setup.config.method_settings()
    terms = []
    for name, (module, cls) in TERMS.items():
        weight = float(getattr(settings, name))
        if weight > 0 and (name not in SWITCHES or getattr(settings, SWITCHES[name])):
            term = getattr(importlib.import_module(f"model.training.methods.{module}"), cls)
            terms.append((weight, term(setup)))
    return terms
