"""What events and features say that the model or the catalogue does not know: it is stored or used, and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.artifact.features import ContextVocabulary, is_history_event, known_type
from service.common.answer_warnings import Warnings
from service.lifecycle.served_model import ServedModel
from service.schemas.recommend_request import InlineEvent


def event_warnings(events: Sequence[InlineEvent], model: ServedModel, *, given_in: str = "items of events") -> Warnings:
    """Returns the warnings about the events that a request brings along.

    Args:
        events: The events of the request.
        model: The model that answers.
        given_in: What the caller calls their items.
    """
    warnings = Warnings()
    if events:
        types = (event.type for event in events if not known_type(event.type))
        warnings.unless_empty('the model reads these types of events as "other"', types)
        signals = (event.type for event in events if not is_history_event(event.type, event.item_id))
        warnings.unless_empty("no list is made from events of these types", signals)
        items = (event.item_id for event in events if not model.known(event.item_id))
        warnings.unless_empty(f"the catalogue does not have these {given_in}", items)
    return warnings


def slot_warnings(warnings: Warnings, field: str, given: Mapping[str, Any], vocabulary: ContextVocabulary) -> None:
    """Warns of names and values of a field that the model does not know.

    Args:
        warnings: Receives the warnings.
        field: The field of the request.
        given: Values by name.
        vocabulary: What the model knows.
    """
    known = vocabulary.slots
    warnings.unless_empty(f"{field}: the model does not use these names", (name for name in given if name not in known))
    values = (
        f"{name}={value}"
        for name, value in given.items()
        if name in known and str(value) not in vocabulary.values.get(name, {})
    )
    warnings.unless_empty(f"{field}: the model does not know these values", values)
