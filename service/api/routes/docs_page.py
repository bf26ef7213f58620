"""`/openapi.json`, the OpenAPI document, and `/docs`, the same as one page.

The page is rendered here, so that it needs no script, and nothing from another origin: a page that loads foreign code
could read what operators type into the console, which has the same origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response

from service.api.direct_route import DirectRoute
from service.api.request import below_prefix

router = APIRouter(route_class=DirectRoute, include_in_schema=False)

_Schema = Mapping[str, Any]
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>API · gpt4rec</title>
<link rel="icon" href="assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="assets/base.css"><link rel="stylesheet" href="assets/api.css"></head>
<body><a class="skip" href="#operations">Skip to the operations</a>
<header class="bar"><p><strong>gpt4rec</strong> <span class="quiet">API</span></p>
<a class="push" href="openapi.json">OpenAPI document</a></header>
<main id="operations">
"""
_FOOT = "</main></body></html>\n"


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """Returns the document. Its server is the path prefix, where the caller reaches the service below one."""
    app: FastAPI = request.app
    prefix = below_prefix(request, "")
    servers = {"servers": [{"url": prefix}]} if prefix else {}
    return Response(orjson.dumps({**app.openapi(), **servers}), media_type="application/json")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Returns the page."""
    app: FastAPI = request.app
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(page(app.openapi()), headers=headers, media_type="text/html")


def page(document: Mapping[str, Any]) -> str:
    """Returns an OpenAPI document as HTML. Every text in it is escaped."""
    schemas = document["components"]["schemas"]
    parts = [_HEAD, f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(document['info'].get('description', ''))}</p>")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.extend(_operation(path, method, operation, schemas))
    return "\n".join([*parts, _FOOT])


def _operation(path: str, method: str, operation: Mapping[str, Any], schemas: _Schema) -> Iterable[str]:
    who = sorted({name for one in operation.get("security", []) for name in one})
    yield f'<section class="panel"><h2><code>{method.upper()} {escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    yield f'<p class="quiet small">{"Requires one of: " + escape(", ".join(who)) if who else "Open to everybody."}</p>'
    if parameters := operation.get("parameters"):
        rows = [(p["name"], f"{p['in']}, {_type(p['schema'])}", p.get("description", "")) for p in parameters]
        yield from _table("Parameters", rows)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield from _body("Body", content["schema"], schemas)
    for content in operation["responses"].get("200", {}).get("content", {}).values():
        yield from _body("Answer", content.get("schema", {}), schemas)
    others = [(s, HTTPStatus(int(s)).phrase, r["description"]) for s, r in operation["responses"].items() if s != "200"]
    yield from _table("Other answers", others)
    yield "</section>"


def _body(title: str, schema: _Schema, schemas: _Schema) -> Iterable[str]:
    name = _name(schema)
    if name is None:
        return
    fields = schemas[name].get("properties", {})
    needed = set(schemas[name].get("required", ()))
    rows = [
        (field, _type(its) + (", required" if field in needed else ""), its.get("description", ""))
        for field, its in fields.items()
    ]
    yield from _table(f"{title}: {name}", rows)
    for nested in sorted({n for its in fields.values() for n in _nested(its)} - {name}):
        yield from _body("Nested", {"$ref": nested}, schemas)


def _table(title: str, rows: Iterable[tuple[str, str, str]]) -> Iterable[str]:
    yield f"<details><summary>{escape(title)}</summary><table><tbody>"
    for name, kind, meaning in rows:
        yield (
            f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="quiet">{escape(kind)}</td>'
            f"<td>{escape(meaning)}</td></tr>"
        )
    yield "</tbody></table></details>"


def _type(schema: _Schema) -> str:
    """Returns a short text for a schema."""
    if name := _name(schema):
        return name
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    default = [f"default {schema['default']}"] if schema.get("default") not in (None, [], "") else []
    return ", ".join([kind, *bounds, *default])


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "maxLength": "up to"}


def _name(schema: _Schema) -> str | None:
    return schema["$ref"].rpartition("/")[2] if "$ref" in schema else None


def _nested(schema: Any) -> Iterable[str]:
    """Yields the names of the schemas that this one refers to."""
    if isinstance(schema, Mapping):
        if name := _name(schema):
            yield name
        for value in schema.values():
            yield from _nested(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _nested(value)
