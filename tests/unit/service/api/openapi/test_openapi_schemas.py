"""Schemas that generators type allow exactly what the schemas of pydantic allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.json_schema import models_json_schema

from service.api.openapi.examples import sampled
from service.api.openapi.schemas import REF, fields_of, for_generators, referred
from service.schemas.recommend_request import RecommendRequest
from service.schemas.user_requests import Event, FeaturesRequest
from tests.support.openapi import allows, whole

MODELS = (RecommendRequest, Event, FeaturesRequest)
_, _found = models_json_schema([(model, "validation") for model in MODELS], ref_template=REF)
BEFORE: dict[str, Any] = _found["$defs"]
AFTER = for_generators(BEFORE)
ID = st.sampled_from(["u", "", None, 7, "a\x00b", "x" * 129])
# Members that alternatives speak of, and one that they do not.
BODIES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "RecommendRequest": {
        "user_id": ID,
        "session_id": ID,
        "events": st.lists(st.fixed_dictionaries({"item_id": ID}), max_size=2) | st.none(),
        "k": st.sampled_from([1, 101]),
        "filter": st.dictionaries(st.sampled_from(["category", "a\nb", ""]), st.lists(ID, max_size=2), max_size=2),
        "other": st.none(),
    },
    "Event": {
        "user_id": ID,
        "session_id": ID,
        "item_id": ID,
        "type": st.sampled_from(["view", "search", "impression", 1]),
        "timestamp": st.just(1_700_000_000),
        "list_id": ID,
        "request_id": ID,
    },
    "FeaturesRequest": {
        "features": st.dictionaries(
            st.sampled_from(["taste", "a\nb", ""]), st.sampled_from(["jazz", 1, 0.5, None, []])
        ),
    },
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_allowed_exactly_if_it_was(name: str) -> None:
    before, after = (allows({"$ref": REF.format(model=name)}, schemas) for schemas in (BEFORE, AFTER))

    @settings(max_examples=40, deadline=None)
    @given(st.fixed_dictionaries({}, optional=BODIES[name]))
    def same(body: dict[str, Any]) -> None:
        # A name that is no id is refused by the service; pydantic's schema does not say so.
        names = [one for member in ("filter", "features") for one in body.get(member, ())]
        assert after.is_valid(body) == (before.is_valid(body) and "a\nb" not in names)

    same()


def test_alternatives_are_named_by_what_they_require_and_are_typed_whole() -> None:
    union = AFTER["RecommendRequest"]
    assert set(union) == {"title", "description", "anyOf"}
    assert {f"RecommendRequestWith{what}" for what in ("UserId", "SessionId", "Events")} <= set(referred(union))
    by_user = AFTER["RecommendRequestWithUserId"]
    assert by_user["required"] == ["user_id"]
    assert by_user["properties"]["user_id"]["type"] == "string"
    assert "default" not in by_user["properties"]["user_id"]
    assert by_user["properties"]["k"] == BEFORE["RecommendRequest"]["properties"]["k"]
    assert AFTER["RecommendRequestWithEvents"]["properties"]["events"]["minItems"] == 1
    assert AFTER["EventWithSessionIdAndSearch"]["properties"]["type"]["const"] == "search"


def test_no_schema_of_the_document_has_members_and_alternatives_at_once() -> None:
    for name, schema in whole()["components"]["schemas"].items():
        assert not ("properties" in schema and {"anyOf", "oneOf", "allOf"} & set(schema)), name
        assert "patternProperties" not in str(schema), name


def test_two_alternatives_with_one_name_are_refused() -> None:
    alternative: dict[str, Any] = {"required": ["a"], "properties": {}}
    with pytest.raises(ValueError, match="two alternatives of Model have one name"):
        for_generators({"Model": {"properties": {"a": {"type": "string"}}, "anyOf": [alternative, alternative]}})


def test_the_members_of_a_union_are_those_of_all_its_kinds() -> None:
    members, required = fields_of(AFTER["Event"], AFTER)
    assert set(members) == set(Event.model_fields)
    assert required == {"type", "timestamp"}
    assert "const" not in members["type"]


def test_a_value_made_from_a_schema_is_allowed_by_it() -> None:
    schemas = whole()["components"]["schemas"]
    for name, schema in schemas.items():
        value = sampled(schema, schemas)
        faults = allows({"$ref": REF.format(model=name)}, schemas).iter_errors(value)
        assert not (found := next(faults, None)), (name, found)
