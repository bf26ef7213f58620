"""Sentence vectors of the queries that a network knows, as one more of their n-grams."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig

# Numbers of a sentence vector (`model.texts.sentence_vectors`).
SENTENCE_DIM = 384
# The share of known queries that training reads as if they were not known, so that the n-grams alone say enough.
FORGOTTEN = 0.25


class QueryVectors(nn.Module):
    """Fixed vectors behind a learned projection.

    Attributes:
        vectors: [n, SENTENCE_DIM] of the queries whose numbers are from `query_buckets` + 1 on; saved with the weights.
        project: To the width of the network.
    """

    vectors: Tensor

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.first = c.query_buckets + 1
        self.register_buffer("vectors", torch.zeros(c.n_known_queries, SENTENCE_DIM))
        self.project = nn.Linear(SENTENCE_DIM, c.d_model, bias=False)

    def forgotten(self, query: Tensor) -> Tensor:
        """Returns the numbers of queries [..., QUERY_GRAMS]; in training without those of some known queries."""
        if not self.training:
            return query
        forget = torch.rand(query.shape[:-1], device=query.device) < FORGOTTEN
        return torch.where(forget[..., None] & (query >= self.first), 0, query)

    def forward(self, query: Tensor) -> Tensor:
        """Returns the projected vectors [..., d] of queries [..., QUERY_GRAMS]; 0 for those that are not known."""
        number = (query.amax(dim=-1) - self.first + 1).clamp(min=0)
        out: Tensor = self.project(F.embedding(number, F.pad(self.vectors, (0, 0, 1, 0))))
        return out
