"""What a request for a list says that the model or the catalogue does not know: it is answered, and it is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.artifact.features import ContextVocabulary
from service.common.answer_warnings import Warnings
from service.history.event_warnings import event_warnings
from service.lifecycle.served_model import ServedModel
from service.schemas.requests import RecommendRequest


def list_warnings(request: RecommendRequest, model: ServedModel) -> Warnings:
    """Returns the warnings about a request.

    Args:
        request: The validated body.
        model: The model that answers.
    """
    warnings = event_warnings(request.events, model)
    if request.filter:
        unknown = (
            f"{field}={value}"
            for field, values in request.filter.items()
            for value in values
            if not model.catalogue.has_value(field, value)
        )
        warnings.unless_empty("no item of the catalogue has these values of the filter", unknown)
    vocabulary = model.vocabulary.context
    if request.features:
        _about_slots(warnings, "features", request.features, vocabulary)
    if request.context:
        _about_slots(warnings, "context", request.context, vocabulary)
    if request.scene is not None:
        _about_slots(warnings, "scene", {vocabulary.SCENE: request.scene}, vocabulary)
    return warnings


def _about_slots(warnings: Warnings, field: str, given: Mapping[str, Any], vocabulary: ContextVocabulary) -> None:
    """Warns of names and values of a field that the model does not know."""
    known = vocabulary.slots
    warnings.unless_empty(f"{field}: the model does not use these names", (name for name in given if name not in known))
    values = (
        f"{name}={value}"
        for name, value in given.items()
        if name in known and str(value) not in vocabulary.values.get(name, {})
    )
    warnings.unless_empty(f"{field}: the model does not know these values", values)
