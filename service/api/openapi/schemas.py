"""Writes the schemas of the OpenAPI document so that generators of clients type them whole; they allow the same.

Three forms that JSON Schema knows, and generators drop, refuse or misread, are written in another way:

    anyOf: one of these members is required   →  anyOf: a named schema for each member that is required
    patternProperties, nothing else allowed   →  additionalProperties, with the pattern for the names
    default: null                             →  left out: it makes openapi-typescript require the member
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

Schema = dict[str, Any]

REF = "#/components/schemas/{model}"
# What a schema says of itself, and not of its values.
_SAYS = ("title", "description")


def for_generators(schemas: Mapping[str, Schema]) -> dict[str, Schema]:
    """Returns the schemas of a document in forms that generators type.

    Args:
        schemas: By name.

    Raises:
        ValueError: Two alternatives of a schema get one name.
    """
    found: dict[str, Schema] = {}
    for name, schema in schemas.items():
        if "properties" in schema and "anyOf" in schema:
            found.update(_alternatives(name, schema))
        else:
            found[name] = schema
    return {name: _plain(schema) for name, schema in found.items()}


def _alternatives(name: str, schema: Schema) -> dict[str, Schema]:
    """Returns a schema with required alternatives as a union, and its alternatives, by name."""
    whole = {key: value for key, value in schema.items() if key != "anyOf"}
    named = {f"{name}With{_suffix(one)}": _alternative(whole, one) for one in schema["anyOf"]}
    if len(named) < len(schema["anyOf"]):
        raise ValueError(f"two alternatives of {name} have one name; let them require other members or constants")
    says = {key: schema[key] for key in _SAYS if key in schema}
    union = {**says, "anyOf": [{"$ref": REF.format(model=one)} for one in named]}
    return {name: union, **{key: {**one, "title": key} for key, one in named.items()}}


def _suffix(alternative: Schema) -> str:
    """Returns the name of an alternative: its required members, and for a constant its value."""
    members = (alternative["properties"].get(name, {}).get("const", name) for name in alternative["required"])
    return "And".join(_camel(str(member)) for member in members)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _alternative(schema: Schema, alternative: Schema) -> Schema:
    """Returns a schema in which the members of an alternative are required."""
    properties = dict(schema["properties"])
    for name in alternative["required"]:
        properties[name] = _required(properties[name], alternative["properties"].get(name, {}))
    # In the order of the members, so that a document does not change where nothing changed.
    needed = {*schema.get("required", ()), *alternative["required"]}
    return {**schema, "properties": properties, "required": [name for name in properties if name in needed]}


def _required(member: Schema, also: Schema) -> Schema:
    """Returns the schema of a member that is given and not null, and is what the alternative says of it."""
    says = {key: member[key] for key in _SAYS if key in member}
    kinds = [one for one in member.get("anyOf", [member]) if one.get("type") != "null"]
    if "const" in also:
        return {"type": "string", "const": also["const"], **says}
    kind = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {**{key: value for key, value in kind.items() if key != "default"}, **also, **says}


def _plain(schema: Any) -> Any:
    """Returns a schema without nulls as defaults, and without patternProperties.

    pydantic writes those for mappings whose names have a pattern.
    """
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _plain(value) for key, value in schema.items() if key != "default" or value is not None}
    patterns = found.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) == 1 and "properties" not in found:
        [(pattern, values)] = found.pop("patternProperties").items()
        found["additionalProperties"] = values
        found["propertyNames"] = {**found.get("propertyNames", {}), "pattern": pattern}
    return found


def fields_of(schema: Schema, schemas: Mapping[str, Schema]) -> tuple[dict[str, Schema], set[str]]:
    """Returns the members of an object, or of every kind of a union of objects, and those that all kinds require."""
    kinds = [resolved(one, schemas) for one in schema.get("anyOf", [schema])]
    members: dict[str, Schema] = {}
    for kind in kinds:
        for name, member in kind.get("properties", {}).items():
            # The widest form is told: without the constant that one kind requires.
            if name not in members or "const" in members[name]:
                members[name] = member
    required = [set(kind.get("required", ())) for kind in kinds]
    return members, set.intersection(*required) if required else set()


def resolved(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    """Returns the schema that a reference names, and any other as it is."""
    return schemas[name] if (name := name_of(schema)) else schema


def name_of(schema: Mapping[str, Any]) -> str | None:
    """Returns the name of the schema that a reference names; None for any other."""
    return schema["$ref"].rpartition("/")[2] if "$ref" in schema else None


def referred(schema: Any) -> Iterable[str]:
    """Yields the names of the schemas that a schema refers to."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        yield from chain.from_iterable(map(referred, schema.values()))
    elif isinstance(schema, list):
        yield from chain.from_iterable(map(referred, schema))
