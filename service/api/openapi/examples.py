"""Examples of the OpenAPI document: of parameters, bodies, answers and problem documents.

`examples.json` has those of the operations, as a real service answered them. An operation that it does not name gets
examples that are made from its schemas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from service.api.openapi.operations import Operation, operations
from service.api.openapi.schemas import Schema, resolved
from service.common import errors, request_errors

_FILE = Path(__file__).with_name("examples.json")
_JSON = "application/json"
_REQUEST_ID = "3f0c9a5e1b7d4c2f8a6e0d9b7c5a3f1e"
# By name, of parameters and of members of examples that are made from schemas.
_VALUES: dict[str, Any] = {
    "user_id": "u-4711",
    "session_id": "s-2b81",
    "item_id": "172",
    "request_id": _REQUEST_ID,
    "name": "wider_beams",
    "version": "movielens-100k-8e1f4b0c2d",
    "model_version": "movielens-100k-8e1f4b0c2d",
    "title": "Empire Strikes Back, The (1980)",
    "timestamp": "2026-01-01T12:00:00Z",
    "q": "star",
    "cursor": "AQ9kZWZhdWx0",
    "k": 10,
    "fields": "title,price,image,url",
}
_TEXTS = {
    "text/plain": "# TYPE gpt4rec_inflight gauge\ngpt4rec_inflight 1.0\n",
    "application/openmetrics-text": "# TYPE gpt4rec_inflight gauge\ngpt4rec_inflight 1.0\n# EOF\n",
    "text/html": '<!doctype html>\n<html lang="en"><head><title>gpt4rec</title></head><body></body></html>\n',
}
_DEPTH_MAX = 12
# The error of a status that callers meet most. Of other statuses it is the first in the tree.
_PROBLEMS: tuple[tuple[type[errors.ServiceError], str], ...] = (
    (request_errors.BadRequest, "the body is empty; send a JSON object"),
    (request_errors.Unauthorized, "a valid API key is needed"),
    (request_errors.Forbidden, "this API key may not read or erase users"),
    (request_errors.NotFound, "nothing is known by this name"),
    (request_errors.TooSlow, "the request took too long to arrive"),
    (request_errors.Conflict, "there is no version before this one"),
    (request_errors.CursorGone, "the cursor has expired; ask anew without it"),
    (request_errors.BodyTooLarge, "the body is larger than 1000000 bytes"),
    (request_errors.TargetTooLong, "the path and query are too long"),
    (request_errors.EncodedBody, "Content-Encoding: gzip is not read; send the body as plain JSON, without the header"),
    (request_errors.InvalidRequest, "the body is not valid; see errors"),
    (request_errors.TooManyRequests, "the key has used up its rate"),
    (request_errors.HeadTooLarge, "there are too many headers, or they are too large"),
    (errors.ServiceError, "Internal error"),
    (errors.StoreUnavailable, "The event store is unavailable"),
)
_FAULT = {"loc": ["k"], "message": "Input should be less than or equal to 100", "type": "less_than_equal"}


@cache
def recorded() -> dict[str, Any]:
    """Returns the examples of the file by operation: `requests` by what they show, and `answer`."""
    found: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    return found


def add_examples(document: dict[str, Any]) -> None:
    """Adds examples to every parameter, body and answer of a document."""
    schemas = document["components"]["schemas"]
    kinds = {kind.status: (kind, kind.title) for kind in [*_below(errors.ServiceError)][::-1]}
    kinds |= {kind.status: (kind, detail) for kind, detail in _PROBLEMS}
    document["components"]["examples"] = {
        f"Problem{status}": {"summary": kind.title, "value": _problem(kind, detail)}
        for status, (kind, detail) in sorted(kinds.items())
    }
    for _, _, operation in operations(document):
        known = recorded().get(operation["operationId"], {})
        for parameter in operation.get("parameters", ()):
            parameter["example"] = sampled(parameter["schema"], schemas, parameter["name"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            requests = known.get("requests") or {"a request": sampled(content["schema"], schemas)}
            content["examples"] = {_key(says): {"summary": says, "value": one} for says, one in requests.items()}
        _add_answers(operation, known.get("answer"), schemas)


def _add_answers(operation: Operation, answer: Any, schemas: Mapping[str, Schema]) -> None:
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
            if kind in _TEXTS:
                content["schema"] = {"type": "string"}
                content["examples"] = {"answer": {"value": _TEXTS[kind]}}
            elif kind == _JSON:
                value = answer if status == "200" and answer is not None else sampled(content["schema"], schemas)
                content["examples"] = {"answer": {"value": value}}
            else:
                content["examples"] = {"problem": {"$ref": f"#/components/examples/Problem{status}"}}


def _below(kind: type[errors.ServiceError]) -> Iterable[type[errors.ServiceError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def _key(text: str) -> str:
    return text.replace(" ", "_")


def _problem(kind: type[errors.ServiceError], detail: str) -> dict[str, Any]:
    listed = {"errors": [_FAULT]} if kind is request_errors.InvalidRequest else {}
    return {
        "type": f"urn:gpt4rec:problem:{kind.reason}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": _REQUEST_ID,
        **listed,
    }


def sampled(schema: Schema, schemas: Mapping[str, Schema], name: str = "", depth: int = 0) -> Any:
    """Returns a value that a schema allows: the required members alone, and the shortest lists but one.

    Args:
        schema: The schema.
        schemas: Those that it may refer to, by name.
        name: Of the member or parameter.
        depth: How deep the value is in the example.
    """
    schema = resolved(schema, schemas)
    for key in ("example", "const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return sampled(schema[key][0], schemas, name, depth)
    match schema.get("type"):
        case "string" if name in _VALUES or schema.get("format") == "date-time":
            return str(_VALUES.get(name, _VALUES["timestamp"]))
        case "object":
            members = {one: schema["properties"][one] for one in schema.get("required", ())}
            if schema.get("minProperties") and not members:
                members = {"category": schema["additionalProperties"]}
            return {one: sampled(its, schemas, one, depth + 1) for one, its in members.items()}
        case "array":
            items = schema.get("items", {})
            several = depth < _DEPTH_MAX and (schema.get("minItems", 0) or "$ref" in items)
            return [sampled(items, schemas, name, depth + 1)] if several else []
        case kind:
            return _plain(str(kind), schema)


def _plain(kind: str, schema: Schema) -> Any:
    match kind:
        case "integer" | "number":
            least: float = schema.get("minimum", schema.get("exclusiveMinimum")) or 0
            most: float | None = schema.get("maximum")
            if "exclusiveMinimum" not in schema:
                return max(least, 0) if most is None else min(max(least, 0), most)
            return least + 1 if most is None or kind == "integer" else (least + most) / 2
        case "boolean":
            return False
        case "null":
            return None
        case "string":
            return "text"[: schema.get("maxLength", 4)]
    return {}
