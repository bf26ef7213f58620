"""`/openapi.json`, the OpenAPI document, and `/docs`, the same as one page.

The page is rendered here, so that it needs no script, and nothing from another origin: a page that loads foreign code
could read what operators type into the console, which has the same origin. Both are made on another thread, since
lists must not wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi.operations import operations
from service.api.openapi.schemas import REF, Schema, fields_of, name_of, referred
from service.api.request import below_prefix

router = APIRouter(route_class=DirectRoute, include_in_schema=False)

_Schemas = Mapping[str, Schema]
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

    def made() -> bytes:
        return orjson.dumps({**app.openapi(), **servers})

    return Response(await asyncio.to_thread(made), media_type="application/json")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Returns the page."""
    app: FastAPI = request.app
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    made = await asyncio.to_thread(lambda: page(app.openapi()))
    return Response(made, headers=headers, media_type="text/html")


def page(document: Mapping[str, Any]) -> str:
    """Returns an OpenAPI document as HTML, in its order: what frontends call comes first. Every text is escaped."""
    components = document["components"]
    groups: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    for path, method, operation in operations(document):
        groups[operation["tags"][0]].extend(_operation(path, method, operation, components["schemas"]))
    groups = {name: parts for name, parts in groups.items() if parts}
    parts = [_HEAD, f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(document['info'].get('description', ''))}</p>")
    links = (f'<a href="#{escape(name)}">{escape(name)}</a>' for name in groups)
    parts.append(f'<nav aria-label="Groups"><p>{" · ".join(links)}</p></nav>')
    meanings = {tag["name"]: tag["description"] for tag in document["tags"]}
    for name, operations_of in groups.items():
        parts.append(f'<h2 id="{escape(name)}">{escape(name.capitalize())}</h2><p>{escape(meanings[name])}</p>')
        parts.extend(operations_of)
    parts.append('<section class="panel"><h2>Headers of answers</h2>')
    headers = components["headers"].items()
    parts.extend(_table("Headers", ((name, _type(one["schema"]), one["description"]) for name, one in headers)))
    return "\n".join([*parts, "</section>", _FOOT])


def _operation(path: str, method: str, operation: Mapping[str, Any], schemas: _Schemas) -> Iterable[str]:
    who = sorted({name for one in operation.get("security", []) for name in one})
    name = escape(operation["operationId"])
    yield f'<section class="panel" id="{name}"><h3><code>{method.upper()} {escape(path)}</code></h3>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    needs = f"Requires one of: {escape(', '.join(who))}." if who else "Open to everybody."
    yield f'<p class="quiet small">{needs} Operation <code>{name}</code>.</p>'
    if parameters := operation.get("parameters"):
        rows = [(p["name"], f"{p['in']}, {_type(p['schema'])}", p.get("description", "")) for p in parameters]
        yield from _table("Parameters", rows)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield from _examples("Example", content)
        yield from _body("Body", content["schema"], schemas)
    for kind, content in operation["responses"].get("200", {}).get("content", {}).items():
        for schema in content.get("schema", {}).get("anyOf", [content.get("schema", {})]):
            yield from _body("Answer", schema, schemas)
        if not kind.startswith("text/"):
            yield from _examples("Example of the answer", content)
    others = [(s, HTTPStatus(int(s)).phrase, r["description"]) for s, r in operation["responses"].items() if s != "200"]
    yield from _table("Other answers", others)
    yield "</section>"


def _examples(title: str, content: Mapping[str, Any]) -> Iterable[str]:
    for example in content.get("examples", {}).values():
        says = f": {example['summary']}" if "summary" in example else ""
        text = orjson.dumps(example["value"], option=orjson.OPT_INDENT_2).decode()
        yield f"<details><summary>{escape(title + says)}</summary><pre>{escape(text)}</pre></details>"


def _body(title: str, schema: Mapping[str, Any], schemas: _Schemas) -> Iterable[str]:
    name = name_of(schema)
    if name is None:
        return
    fields, needed = fields_of(schemas[name], schemas)
    rows = [
        (field, _type(its) + (", required" if field in needed else ""), its.get("description", ""))
        for field, its in fields.items()
    ]
    yield from _table(f"{title}: {name}", rows)
    for nested in sorted({n for its in fields.values() for n in referred(its)} - {name}):
        yield from _body("Nested", {"$ref": REF.format(model=nested)}, schemas)


def _table(title: str, rows: Iterable[tuple[str, str, str]]) -> Iterable[str]:
    yield f"<details><summary>{escape(title)}</summary><table><tbody>"
    for name, kind, meaning in rows:
        yield (
            f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="quiet">{escape(kind)}</td>'
            f"<td>{escape(meaning)}</td></tr>"
        )
    yield "</tbody></table></details>"


def _type(schema: Mapping[str, Any]) -> str:
    """Returns a short text for a schema."""
    if name := name_of(schema):
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
