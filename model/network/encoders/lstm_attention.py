"""An LSTM with additive attention over its earlier states.

Attention of Bahdanau et al., "Neural machine translation by jointly learning to align and translate", 2015, over the
recurrent states so far, as in NARM (Li et al., 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder, Events, causal


class LSTMAttention(Encoder):
    """`layers` LSTM layers; each state is joined with what it attends to among the states so far."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        dropout = c.dropout if c.layers > 1 else 0.0
        self.lstm = nn.LSTM(c.d_model, c.d_model, c.layers, batch_first=True, dropout=dropout)
        # The array over pairs of events is the largest of a training step, so the attention is narrow.
        narrow = max(8, c.d_model // 4)
        self.query = nn.Linear(c.d_model, narrow)
        self.key = nn.Linear(c.d_model, narrow, bias=False)
        self.score = nn.Linear(narrow, 1, bias=False)
        self.out = nn.Linear(2 * c.d_model, c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        state = self.lstm(x)[0]
        pairs = torch.tanh(self.query(state)[:, :, None] + self.key(state)[:, None])
        score = self.score(pairs)[..., 0] + causal(x.shape[1], x)
        h: Tensor = self.out(torch.cat([state, score.softmax(-1) @ state], dim=-1))
        return h
