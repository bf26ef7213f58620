"""What each training method is held to, written before it was measured, and how its figures are judged.

The figure of a row is NDCG@10 of the network alone divided by that of the training it is compared with. A method that
promises better lists has to be above 1; one that promises something else may lose no more than 3 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model.evaluation.bootstrap import Interval

LARGEST_LOSS = 0.97
SIGNIFICANT = 0.05
BETTER: Mapping[str, float] = {"above": 1.0}
NO_WORSE: Mapping[str, float] = {"at_least": LARGEST_LOSS}

DEFAULTS = "defaults"
Verdict = Literal["helps", "hurts", "no difference found"]


@dataclass(frozen=True)
class Method:
    """A training.

    Attributes:
        settings: What it changes of the defaults. `TEACHER` stands for the run of the larger network, `OTHER` for the
            run of another data set, `QUARTER` for a quarter of the epochs.
        against: The training it is compared with.
        limit: Limit of its NDCG@10 over that of `against`, as keywords of `results.row`.
        by_path: Whether lists are ranked by token paths alone, which is what the method trains.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    against: str = DEFAULTS
    limit: Mapping[str, float] = field(default_factory=lambda: BETTER)
    by_path: bool = False


TEACHER, OTHER, QUARTER = "teacher", "another data set", "a quarter of the epochs"
SAMPLED, NEWEST = "negatives: mixed", "truncation: the newest 30"
WINDOW, BOTH_SIDES = "window attention", "encoder and decoder"
HIERARCHY, BY_NAME = "encoder: hierarchy", "encoder: hierarchy of named sessions"
# Encoders that remember more than the window of the defaults, which carry their state from event to event as well.
REMEMBERING = ("encoder: gated linear", "encoder: compressive", "encoder: memory bank", HIERARCHY)
# Of an encoder that promises more than the window, in the same minutes of a service: the time of encoding one more
# event over that of the window, and the bytes of its state.
LONGEST_EVENT: Mapping[str, float] = {"at_most": 1.3}
LARGEST_STATE: Mapping[str, float] = {"at_most": 24 * 1024.0}
AHEAD: Mapping[str, float] = {"above": 0.0}
# Methods are off by default, so the defaults must learn, list and cost what they did without them.
UNCHANGED: Mapping[str, Mapping[str, float]] = {
    "weights that differ": {"at_most": 0},
    "share of places of the lists that are equal": {"at_least": 0.999},
    "share of NDCG@10 lost, upper end": {"at_most": 0.03},
    "time of a list": {"at_most": 1.03},
    "graphs of the encoder that differ": {"at_most": 0},
}


def _in_window(**network: Any) -> dict[str, Any]:
    """Returns the settings of `window_attention` with some of the network's changed."""
    return {"encoder": "window_attention", **{f"network.{name}": value for name, value in network.items()}}


METHODS: dict[str, Method] = {
    DEFAULTS: Method(),
    SAMPLED: Method({"negatives": 512}, limit=NO_WORSE),
    "negatives: uniform": Method({"negatives": 512, "methods.negatives": "uniform"}, SAMPLED),
    "negatives: popular": Method({"negatives": 512, "methods.negatives": "popular"}, SAMPLED),
    "negatives: batch": Method({"negatives": 512, "methods.negatives": "batch"}, SAMPLED),
    "negatives: batch and mixed": Method({"negatives": 512, "methods.negatives": "batch_mixed"}, SAMPLED),
    "augmentation .3": Method({"methods.augment": 0.3}),
    "contrast .1": Method({"methods.contrast": 0.1}),
    "bfloat16": Method({"methods.precision": "bfloat16"}, limit=NO_WORSE),
    "pretraining": Method({"methods.pretrain_epochs": QUARTER}),
    "scheduled sampling .25": Method({"methods.scheduled_sampling": 0.25}, by_path=True),
    "distillation": Method({"methods.teacher": TEACHER}),
    "distillation to rare items .1": Method({"methods.item_teacher": 0.1}),
    "diversity .01": Method({"methods.diversity": 0.01}, limit=NO_WORSE),
    "diversity .1": Method({"methods.diversity": 0.1}, limit=NO_WORSE),
    "diversity 1": Method({"methods.diversity": 1.0}, limit=NO_WORSE),
    NEWEST: Method({"methods.keep_events": 30}, limit=NO_WORSE),
    "truncation: the most important 30": Method({"methods.keep_events": 30, "methods.keep": "important"}, NEWEST),
    "random clicks .1": Method({"methods.random_clicks": 0.1}, limit=NO_WORSE),
    "adversarial 1": Method({"methods.adversarial": 1.0}),
    "meta-learned start .1": Method({"methods.meta_start": 0.1}, limit=NO_WORSE),
    WINDOW: Method(_in_window(), limit=NO_WORSE),
    "positions: relative": Method(_in_window(positions="relative"), WINDOW),
    "positions: relative and time": Method(_in_window(positions="relative_time"), WINDOW),
    "positions: sinusoids": Method(_in_window(positions="sinusoid"), WINDOW),
    "decay: exponential": Method(_in_window(time_decay="exponential"), WINDOW),
    "decay: linear": Method(_in_window(time_decay="linear"), WINDOW),
    "decay: none": Method(_in_window(time_decay="none"), WINDOW, NO_WORSE),
    "pattern: strided": Method(_in_window(pattern="strided"), WINDOW, NO_WORSE),
    "pattern: fixed": Method(_in_window(pattern="fixed"), WINDOW, NO_WORSE),
    "pattern: routing": Method({**_in_window(pattern="routing"), "methods.routing_balance": 0.01}, WINDOW, NO_WORSE),
    BOTH_SIDES: Method({"encoder": "encoder_decoder"}, limit=NO_WORSE),
    "attributes 4": Method({"encoder": "encoder_decoder", "network.attribute_slots": 4}, BOTH_SIDES),
    "attributes 8": Method({"encoder": "encoder_decoder", "network.attribute_slots": 8}, BOTH_SIDES),
    REMEMBERING[0]: Method({"encoder": "gated_linear"}),
    REMEMBERING[1]: Method({"encoder": "compressive"}),
    REMEMBERING[2]: Method({"encoder": "memory_bank"}),
    HIERARCHY: Method({"encoder": "hierarchy"}),
    BY_NAME: Method({"encoder": "hierarchy", "network.session_ids": True}, HIERARCHY),
    "encoder: GPT-2's with random weights": Method({"encoder": "gpt2rec"}, limit=NO_WORSE),
    "adapters 16": Method({"methods.backbone": OTHER, "methods.adapter": 16}, limit=NO_WORSE),
}


def verdict(interval: Interval, p_holm: float) -> Verdict:
    """Returns what an interval of NDCG@10 says, with Holm's correction over all methods."""
    if p_holm > SIGNIFICANT:
        return "no difference found"
    return "helps" if interval.difference > 0 else "hurts"


def worth_it(low: float, p_holm: float, event_ratio: float, state_bytes: int) -> bool:
    """Returns whether an encoder beats the window by more than chance within the limits of time and state.

    Args:
        low: Lower end of the interval of its gain in NDCG@10.
        p_holm: The p-value of the gain, corrected over all methods.
        event_ratio: Time of an event over that of the window.
        state_bytes: Bytes of its state.
    """
    cheap = event_ratio <= LONGEST_EVENT["at_most"] and state_bytes <= LARGEST_STATE["at_most"]
    return low > AHEAD["above"] and p_holm <= SIGNIFICANT and cheap
