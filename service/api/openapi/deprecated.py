"""Marks in the OpenAPI document what is deprecated."""

from __future__ import annotations

from typing import Any

from service.schemas.deprecations import AnswerField, BodyField, Deprecated, Deprecations, Operation


def mark(document: dict[str, Any], deprecations: Deprecations) -> None:
    """Marks operations, parameters and members, and says until when they work and what to use instead.

    Raises:
        ValueError: An entry names an operation, parameter or schema that the document does not have.
    """
    for one in deprecations.entries:
        marked = _marked(document, one)
        if marked is None:
            continue
        if not marked:
            raise ValueError(f"{one.name} is deprecated, but not in the OpenAPI document; correct its entry")
        marked["deprecated"] = True
        marked["description"] = f"{marked.get('description', '')} {_notice(one)}".lstrip()


def _marked(document: dict[str, Any], one: Deprecated) -> dict[str, Any] | None:
    """Returns what an entry names, {} if nothing is there; None for a version of a path, since a document has one."""
    found: dict[str, Any] = {}
    match one.what:
        case BodyField(model, name) | AnswerField(model, name):
            found = document["components"]["schemas"].get(model.__name__, {}).get("properties", {}).get(name, {})
        case Operation(version=str()):
            return None
        case Operation(method, path, _, query):
            found = document["paths"].get(path, {}).get(method.lower(), {})
            if query is not None:
                found = next((p for p in found.get("parameters", ()) if (p["in"], p["name"]) == ("query", query)), {})
    return found


def _notice(one: Deprecated) -> str:
    works = f"works until {one.sunset} and is removed in {one.removed_in}"
    return f"Deprecated since {one.declared_in}; {works}. {one.instead}"
