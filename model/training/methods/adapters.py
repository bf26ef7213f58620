"""Adapters for another shop: the encoder of a finished network stays as it is, and small layers beside it are learned.

Houlsby et al. (2019), in the parallel form of He et al. (2022). Each feed-forward layer of the encoder becomes

    W₂ gelu(W₁ n + b₁) + b₂  +  D gelu(U n + c)        n: normed input; U [r, d], c [r]; D [d, r], from zeros

Only U, c and D of the encoder are learned, and whatever belongs to a shop: items, tokens, context, decoder. Two such
layers over one input are one with r more units, so the result is an ordinary network with a larger `d_ff`: what is
exported and served knows no adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from model.errors import ConfigError, RunError
from model.network.gpt4rec import GPT4Rec
from model.training.config import TrainConfig
from model.training.run_folder import Run

# What is kept of a network: its encoder, and how it reads the type and the time of events.
KEPT = ("encoder.", "event_type.", "type_scale", "gap.", "period.")
# Fields of a network that follow from the backbone, beside `d_ff`, which has the adapters' units as well.
FOLLOW = ("d_model", "layers", "heads", "d_head", "window", "state_dtype", "type_scale", "attribute_slots")
# The parameters that have rows or columns for the adapters' units, and the dimension of these.
WIDENED = {"up.weight": 0, "up.bias": 0, "down.weight": 1}


def resolve_backbone(config: TrainConfig) -> TrainConfig:
    """Returns the configuration with the network fields that follow from the backbone that it names, if it names one.

    Raises:
        ConfigError: The encoder or a field that was set does not fit.
        RunError: The folder holds no run.
    """
    settings = config.method_settings()
    if not settings.backbone:
        return config
    run = Run.open(Path(settings.backbone))
    if run.network.encoder != config.encoder:
        raise ConfigError(
            f"encoder is {config.encoder}, but the backbone in {settings.backbone} has {run.network.encoder}; "
            f"set encoder={run.network.encoder}"
        )
    needed = {name: getattr(run.network, name) for name in FOLLOW} | {"d_ff": run.network.d_ff + settings.adapter}
    for name, value in needed.items():
        if (given := config.network.get(name, value)) != value:
            raise ConfigError(
                f"network.{name} is {given}, but the backbone in {settings.backbone} with its adapters needs {value}; "
                f"leave network.{name} out"
            )
    return replace(config, network={**needed, **config.network})


@torch.no_grad()
def start_from_backbone(model: GPT4Rec, folder: Path) -> None:
    """Gives a network the encoder of a backbone; its adapters add nothing yet.

    Args:
        model: A network whose shape follows from `resolve_backbone`.
        folder: Run folder of the backbone.

    Raises:
        RunError: The backbone has no feed-forward layers, or only one of the two reads times.
    """
    backbone = Run.open(folder).model()
    if not any(name.endswith(".up.weight") for name, _ in backbone.encoder.named_parameters()):
        raise RunError(
            f"the encoder {backbone.config.encoder} has no feed-forward layers for adapters to stand beside",
            where=str(folder),
            fix="train the backbone with encoder gpt4rec, sasrec or another of attention",
        )
    if backbone.config.has_time != model.config.has_time:
        with_times, without = ("backbone", "data") if backbone.config.has_time else ("data", "backbone")
        raise RunError(
            f"the {with_times} has times of events, the {without} has none",
            where=str(folder),
            fix="train the backbone on a log like this one",
        )
    own = dict(backbone.named_parameters())
    for name, parameter, dim in _kept(model):
        old = own[name]
        if dim is None:
            parameter.copy_(old)
        else:
            parameter.narrow(dim, 0, old.shape[dim]).copy_(old)
            if name.endswith("down.weight"):
                parameter[:, old.shape[1] :] = 0
    model.item.weight[-2:] = backbone.item.weight[-2:]  # the unknown item and the start token


class KeptBackbone:
    """Keeps a network's encoder as it is while its adapters are learned; does nothing without a backbone."""

    def __init__(self, model: GPT4Rec, config: TrainConfig) -> None:
        """Stops the gradients of what is kept.

        Args:
            model: The network that is trained, with the weights from which it goes on.
            config: The training configuration.
        """
        settings = config.method_settings()
        self._kept: list[tuple[Tensor, Tensor]] = []
        if not settings.backbone:
            return
        units = model.config.d_ff - settings.adapter
        for _, parameter, dim in _kept(model):
            if dim is None:
                parameter.requires_grad_(False)
                continue
            learned = torch.zeros_like(parameter)
            learned.narrow(dim, units, settings.adapter).fill_(1)
            parameter.register_hook(learned.mul)  # type: ignore[no-untyped-call]
            part = parameter.detach().narrow(dim, 0, units)
            self._kept.append((part, part.clone()))

    def restore(self) -> None:
        """Undoes what weight decay did to the kept parts of parameters that have learned ones."""
        for part, value in self._kept:
            part.copy_(value)


def _kept(model: GPT4Rec) -> Iterator[tuple[str, torch.nn.Parameter, int | None]]:
    """Yields the parameters of what is kept, and for those that adapters widen the dimension of their units."""
    for name, parameter in model.named_parameters():
        if name.startswith(KEPT):
            ending = ".".join(name.split(".")[-2:])
            yield name, parameter, WIDENED.get(ending) if name.startswith("encoder.") else None
