"""The model in service."""

from __future__ import annotations

from collections.abc import Callable

from service.lifecycle.served_model import ServedModel


class Serving:
    """Holds the model that new requests use. A request keeps the model it began with.

    Args:
        model: The first model.
        on_replace: Called whenever another model, or the same over another catalogue, is in service.
    """

    def __init__(self, model: ServedModel, on_replace: Callable[[], None] = lambda: None) -> None:
        self.model = model
        self._on_replace = on_replace

    def __call__(self) -> ServedModel:
        """Returns the model for a request that begins now."""
        return self.model

    def replace(self, model: ServedModel) -> None:
        """Puts another model, or the same over another catalogue, in service."""
        self.model = model
        self._on_replace()
