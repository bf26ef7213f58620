"""What events say that the model or the catalogue does not know, or that is not used: the answer names it."""

from __future__ import annotations

from collections.abc import Sequence

from service.artifact.features import is_history_event, known_type
from service.common.answer_warnings import Warnings
from service.lifecycle.served_model import ServedModel
from service.schemas.requests import InlineEvent


def event_warnings(events: Sequence[InlineEvent], model: ServedModel) -> Warnings:
    """Returns the warnings about the events that a request brings along.

    Args:
        events: The events of the request.
        model: The model that answers.
    """
    warnings = Warnings()
    if events:
        types = (event.type for event in events if not known_type(event.type))
        warnings.unless_empty('the model reads these types of events as "other"', types)
        signals = (event.type for event in events if not is_history_event(event.type, event.item_id))
        warnings.unless_empty("no list is made from events of these types", signals)
        items = (event.item_id for event in events if not model.known(event.item_id))
        warnings.unless_empty("the catalogue does not have these items of events", items)
    return warnings
