"""What a request for a list says that the model or the catalogue does not know: it is answered, and it is named."""

from __future__ import annotations

from collections.abc import Sequence

from service.common.answer_warnings import Warnings
from service.engine.rule_report import RuleOutcome
from service.history.event_warnings import event_warnings, slot_warnings
from service.lifecycle.served_model import ServedModel
from service.schemas.recommend_request import RecommendRequest


def list_warnings(request: RecommendRequest, model: ServedModel) -> Warnings:
    """Returns the warnings about a request.

    Args:
        request: The validated body.
        model: The model that answers.
    """
    warnings = event_warnings(request.events, model, given_in=request.EVENTS_ARE)
    filter_warnings(warnings, request, model)
    vocabulary = model.vocabulary.context
    if request.features:
        slot_warnings(warnings, "features", request.features, vocabulary)
    if request.context:
        slot_warnings(warnings, "context", request.context, vocabulary)
    if request.candidates is not None and request.decoding is not None:
        warnings.add("decoding has no effect where candidates are ranked")
    if request.scene is not None:
        slot_warnings(warnings, "scene", {vocabulary.SCENE: request.scene}, vocabulary)
    return warnings


def filter_warnings(warnings: Warnings, request: RecommendRequest, model: ServedModel) -> None:
    """Adds the warning that names the values of the filter that no item has."""
    if request.filter:
        unknown = model.catalogue.unknown(request.filter)
        warnings.unless_empty("no item of the catalogue has these values of the filter", unknown)


def not_kept(rules: Sequence[RuleOutcome]) -> list[str]:
    """Returns the warning that names the rules that a list does not keep."""
    names = [one.name for one in rules if one.result == "not_kept"]
    if not names:
        return []
    warnings = Warnings()
    warnings.unless_empty("the list does not keep these rules", names)
    return warnings.texts
