"""A network that knows every condition of a request, and requests that name each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from export.artifact_writer import Parts
from model.network.gpt4rec import GPT4Rec
from service.artifact.features import ContextVocabulary
from tests.support.artifacts import random_parts
from tests.support.networks import random_network

CONTEXT = ContextVocabulary.fit(
    {"age": ["old", "young"], "segment": ["gift", "pro"]}, ["basket", "home"], ["a", "b"], 0, ["high", "low"],
    ["oak", "pine"],
)  # fmt: skip
# Slot → what a request says to ask for a value of it.
ASKED: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "age": lambda value: {"features": {"age": value}},
    "segment": lambda value: {"features": {"segment": value}},
    "scene": lambda value: {"scene": value},
    "category": lambda value: {"context": {"category": value}},
    "price_band": lambda value: {"context": {"price_band": value}},
    "style": lambda value: {"context": {"style": value}},
}


def conditional_parts(prompt_for: str | None = None) -> Parts:
    """Parts of an artefact that knows all slots. Values of `prompt_for` move a list by their soft prompts alone."""
    return replace(random_parts(_network(prompt_for)), context=CONTEXT)


def _network(prompt_for: str | None) -> GPT4Rec:
    base = random_network(window=8)
    config = replace(base.config, n_context_rows=CONTEXT.n_rows, n_slots=len(CONTEXT.slots))
    rows = list(CONTEXT.values[prompt_for].values()) if prompt_for is not None else []
    if prompt_for is not None:
        slot = CONTEXT.slots.index(prompt_for)
        config = replace(config, prompts=3, prompt_slot=slot, prompt_first=min(rows), prompt_rows=len(rows))
    torch.manual_seed(1)
    model = GPT4Rec(config, base.codes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.15)
        if model.prompts is not None:
            model.prompts.vectors.mul_(10)
            model.context.table.weight[rows] = -model.context.slot[config.prompt_slot]
    return model.eval()
