"""What the caller of an import says about its values. The command line imports this module before any data library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rules:
    """How to read values that their columns do not explain.

    Attributes:
        allow_loss: Columns, by their names in the source, that may lose more than a twentieth of their values
            (`--allow-loss`).
        decimal: The decimal sign of numbers in text, "." or ","; None: each column tells its own (`--decimal`).
        types: Event type in the source → type in the data set (`--type-map`).
        null_words: Words that stand for a missing value, besides those of `model.data.missing` (`--null`).
    """

    allow_loss: frozenset[str] = frozenset()
    decimal: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    null_words: frozenset[str] = frozenset()
