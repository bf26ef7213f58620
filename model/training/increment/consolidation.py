"""Elastic weight consolidation: weights stay near their old values, the more so the more the old data needs them.

The loss of the new events gets a penalty (Kirkpatrick et al., 2017), ½ · strength · (n_old ÷ n_new) · Σ (F_i + floor) ·
(θ_i − θ*_i)². With strength 1 and no floor it is what the old data says of the weights by Laplace's approximation, per
new event.

**The floor.** A weight whose Fisher information is nearly zero would be free, and most of them are rows of items that
are seldom seen: every step of the softmax pushes them away as wrong answers, and Adam, which divides by the size of the
gradient, makes such small pushes as large as any other. So each weight is held at least like a tenth of the mean weight
of its tensor. Weight decay is off where there is a penalty, because it pulls to zero instead of to the old value.

**The step.** The penalty acts as a proximal step in the metric of Adam, after each of its steps: θ ← θ* + (θ − θ*) ÷
(1 + η · s_i ÷ (√v̂_i + ε)), with the learning rate η, Adam's second moment v̂ and the weight s_i of the penalty. It is
stable for any strength, and is not clipped with the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Share of the mean Fisher information of a tensor that each of its weights is held by at least.
FLOOR = 0.1


class Consolidation:
    """Draws weights back to their old values. Call it after each step of the optimiser."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.AdamW,
        fisher: Mapping[str, Tensor],
        old: Mapping[str, Tensor],
        anchor: Mapping[str, Tensor],
        strength: float,
    ) -> None:
        """Prepares the penalty.

        Args:
            model: The network.
            optimiser: What moves its weights.
            fisher: Fisher information by parameter.
            old: By parameter 1 for weights that the run has, 0 in new rows, which nothing holds.
            anchor: The weights to stay near, by parameter.
            strength: Strength of the penalty, times n_old ÷ n_new.
        """
        self._optimiser = optimiser
        self._held: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}
        for name, parameter in model.named_parameters():
            if name in fisher and parameter.requires_grad:
                value, mask = fisher[name].to(parameter), old[name].to(parameter)
                floor = FLOOR * (value * mask).sum() / mask.sum().clamp(min=1)
                self._held[parameter] = (anchor[name].to(parameter), strength * (value + floor) * mask)

    @torch.no_grad()
    def __call__(self) -> None:
        """Makes the proximal step."""
        for group in self._optimiser.param_groups:
            rate, beta, epsilon = float(group["lr"]), float(group["betas"][1]), float(group["eps"])
            for parameter in group["params"]:
                state = self._optimiser.state.get(parameter)
                if parameter not in self._held or not state:
                    continue
                anchor, weight = self._held[parameter]
                unbias = 1 - beta ** float(state["step"])
                scale = (state["exp_avg_sq"] / unbias).sqrt_().add_(epsilon)
                parameter.copy_(anchor + (parameter - anchor) / (1 + rate * weight / scale))
