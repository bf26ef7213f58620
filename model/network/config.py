"""The shape of a network, as plain data.

The fields that a user may override (`network.<field>` in a training configuration) carry their description as field
metadata: `python -m model.training.reference` writes docs/training.md from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

StateDtype = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network. `code_sizes[l]` is the number of different tokens at level l."""

    n_items: int
    code_sizes: tuple[int, ...]
    n_types: int
    n_context_rows: int
    n_slots: int
    has_time: bool = True
    d_model: int = 128
    layers: int = 2
    heads: int = 4
    d_head: int = 32
    d_ff: int = 256
    d_context: int = 32
    window: int = 50
    dropout: float = 0.3
    state_dtype: StateDtype = "float16"
    encoder: str = "gpt4rec"
    type_scale: bool = False  # learn, for each event type, how much the item of an event weighs
    n_fields: int = 0  # slots of user features; they come first
    content: int = 0  # dimensions of the items' content vectors; 0: items are their ids and tokens

    @property
    def levels(self) -> int:
        """Number of tokens that name an item."""
        return len(self.code_sizes)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values, for `run.json`."""
        return asdict(self) | {"code_sizes": list(self.code_sizes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkConfig:
        """Reads what `to_json` wrote.

        Raises:
            TypeError: A field is unknown or missing. Nothing is filled in silently.
        """
        return cls(**(data | {"code_sizes": tuple(data["code_sizes"])}))


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 32, "layers": 2, "heads": 2, "d_head": 16, "d_ff": 64, "window": 8, "d_context": 8},
    "small": {"d_model": 128, "layers": 2, "heads": 4, "d_head": 32, "d_ff": 256, "window": 50},
    "base": {"d_model": 256, "layers": 4, "heads": 8, "d_head": 32, "d_ff": 1024, "window": 64},
    "large": {"d_model": 512, "layers": 8, "heads": 8, "d_head": 64, "d_ff": 2048, "window": 128},
}
