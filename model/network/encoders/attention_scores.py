"""What positions and times add to the scores of attention: positions by distance, and decay by age.

Everything here depends on distances and differences of times alone, so a state can be carried from event to event.
i is the event that reads, j the one that is read; Δt is the time between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig, TimeDecay
from model.network.encoders.base import log_seconds
from model.network.encoders.streaming import ROPE_BASE

# Entries of the table of times; entry n is for log(1 + Δt in seconds) = n, so that the last is for 15 years.
TIME_ENTRIES = 21
LEAST_WEIGHT = 1e-3  # of what the linear decay has let fall to nothing; its logarithm is finite
DAY_MS = 86_400_000.0


class RelativeBias(nn.Module):
    """w_clip(j − i, −K, K): a number for each head and distance, the last one for all greater distances.

    Shaw et al., "Self-attention with relative position representations", 2018; as a number added to the score, Raffel
    et al. (T5), 2020. Attention is causal, so there are no distances ahead.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.most = c.max_distance
        self.table = nn.Parameter(torch.zeros(c.max_distance + 1, c.heads))

    def forward(self, distance: Tensor) -> Tensor:
        """Returns what is added to the scores [heads, T, S] for the distances i − j [T, S]."""
        bias: Tensor = F.embedding(distance.clamp(0, self.most), self.table).permute(2, 0, 1)
        return bias


class TimeBias(nn.Module):
    """p_time(Δt): a number for each head and time, linear in log(1 + Δt) between the entries of a learned table.

    It is continuous, so that two computations that round differently give the same.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(TIME_ENTRIES, c.heads))

    def forward(self, elapsed: Tensor) -> Tensor:
        """Returns what is added to the scores [B, heads, T, S] for log(1 + Δt in seconds) [B, T, S]."""
        place = elapsed.clamp(max=TIME_ENTRIES - 1.001)
        entry = place.to(torch.int64)  # rounds down
        share = (place - entry.to(place.dtype))[..., None]
        bias = F.embedding(entry, self.table) * (1 - share) + F.embedding(entry + 1, self.table) * share
        return bias.permute(0, 3, 1, 2)


class SinusoidScore(nn.Module):
    """q_i · W (PE(i − j) + α · PE(log(1 + Δt))): sinusoids of position and time, read by what is asked.

    PE is that of Vaswani et al. (2017). It encodes the distance, not the place in the history, as in Dai et al.,
    "Transformer-XL", 2019: a place would grow without end while a state is carried on. α is learned.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.read = nn.Linear(c.d_head, c.d_head, bias=False)
        self.alpha = nn.Parameter(torch.ones(())) if c.has_time else None

    def forward(self, query: Tensor, position: Tensor, time: Tensor | None) -> Tensor:
        """Returns what is added to the scores [B, heads, T, S], before they are scaled.

        Args:
            query: [B, heads, T, d_head] queries.
            position: [T, S, d_head] sinusoids of the distances.
            time: [B, T, S, d_head] sinusoids of the times; None for data without times.
        """
        asked = (query @ self.read.weight).transpose(1, 2)  # [B, T, heads, d_head]
        score = asked @ position.transpose(1, 2)
        if self.alpha is not None and time is not None:
            score = score + self.alpha * (asked @ time.transpose(2, 3))
        return score.transpose(1, 2)


def sinusoids(place: Tensor, d_head: int) -> Tensor:
    """Returns sines and cosines [..., d_head] of float places [...], halves layout."""
    frequency = ROPE_BASE ** (-torch.arange(0, d_head, 2, dtype=torch.float32, device=place.device) / d_head)
    angle = place[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Decay(nn.Module):
    """How the weight w of an event falls with its age; log w is added to its score.

    logarithmic   w = (1 + Δt)^−λ         Δt in seconds: the score falls with the logarithm of the age
    exponential   w = exp(−λ Δt)          Δt in days: the score falls with the age
    linear        w = max(1 − λ Δt, ε)    Δt in days: nothing is left after 1 / λ days

    λ is `network.decay_rate`, or softplus of a parameter of each head where that is 0.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.kind: TimeDecay = c.time_decay
        self.learned = nn.Parameter(torch.full((c.heads,), -3.0)) if c.decay_rate == 0 else None
        self.fixed = c.decay_rate

    def forward(self, age: Tensor) -> Tensor:
        """Returns log w [B, heads, T, S] for ages [B, T, S] as `age_of` returns them."""
        if self.learned is None:
            fallen = self.fixed * age[:, None]
        else:
            fallen = F.softplus(self.learned)[:, None, None] * age[:, None]
        return torch.log((1 - fallen).clamp(min=LEAST_WEIGHT)) if self.kind == "linear" else -fallen


def age_of(delta_ms: Tensor, kind: TimeDecay) -> Tensor:
    """Returns ages in the unit of a decay: log(1 + Δt in seconds), or days, of int64 milliseconds."""
    if kind == "logarithmic":
        return log_seconds(delta_ms)
    return delta_ms.clamp(min=0).to(torch.float32) / DAY_MS
