"""How a sampled list was drawn: what from, and with what probability."""

from __future__ import annotations

from dataclasses import dataclass

from service.artifact.array_types import Float64Array, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Draw:
    """The draw of a list.

    Attributes:
        log_propensities: [n] natural logarithm of the probability of each item drawn, given those drawn before it;
            None if the law is not known, because the list was changed afterwards.
        items: [c] catalogue indices of the candidates that it was drawn from.
        scores: [c] float32 their fused scores, before the temperature.
        log_probs: [c] float32 log-probabilities of their token paths; None if nobody asked.
    """

    log_propensities: FloatArray | Float64Array | None
    items: IntArray
    scores: FloatArray
    log_probs: FloatArray | None = None
