"""The load balance of learned routing (`network.pattern=routing`): S Σ_j f_j P_j of every layer.

Fedus et al., "Switch transformers", 2021, eq. 4, with events in place of experts; see `model.network.encoders.routing`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.errors import RunError
from model.network.encoders.routing import Router, imbalance
from model.training.methods.base import Term
from model.training.positions import Positions, Setup


class RoutingBalance(Term):
    """The mean imbalance of what the layers choose."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.routers = [module for module in self.model.encoder.modules() if isinstance(module, Router)]
        if not self.routers:
            raise RunError("methods.routing_balance needs encoder=window_attention and network.pattern=routing")
        for router in self.routers:
            router.routed = []

    def __call__(self, at: Positions) -> Tensor:
        """Returns the mean over layers and chunks of a batch; the choices of positions that carry a loss count."""
        costs = []
        for router in self.routers:
            start = 0
            for routed in router.routed or ():
                n = routed.score.shape[1]
                costs.append(imbalance(routed, at.at[:, start : start + n]))
                start += n
            router.forget()
        return torch.stack(costs).mean()
