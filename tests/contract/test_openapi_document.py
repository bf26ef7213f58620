"""What callers and generators of clients may rely on in the OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from service.api.openapi.examples import recorded
from service.api.openapi.operations import TAGS, operations
from service.schemas.parsing import parse
from tests.support.aio import asynchronous
from tests.support.openapi import allows, application, whole
from tests.support.serving import serving

IDS = Path(__file__).with_name("operation_ids.txt")


def components() -> dict[str, Any]:
    found: dict[str, Any] = whole()["components"]
    return found


def test_the_ids_of_operations_are_those_of_the_committed_list() -> None:
    """Clients are generated with these names. A new operation gets a line; a line goes two releases after its
    operation was deprecated (docs/api.md)."""
    found = sorted(f"{one['operationId']} {method.upper()} {path}" for path, method, one in operations(whole()))
    committed = IDS.read_text(encoding="utf-8").splitlines()
    assert not set(committed) - set(found), "clients lose operations, or call them by other names"
    assert found == committed, f"add the new operations to {IDS.name}, in order"


def test_ids_are_names_in_every_language() -> None:
    ids = [one["operationId"] for _, _, one in operations(whole())]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", one) for one in ids)


def test_what_frontends_call_comes_first() -> None:
    tags = [one["tags"][0] for _, _, one in operations(whole())]
    assert list(dict.fromkeys(tags)) == [tag for tag in TAGS if tag in tags]
    assert next(iter(whole()["paths"])) == "/recommend"
    assert [tag["name"] for tag in whole()["tags"]] == [tag for tag in TAGS if tag in tags]


# -- examples


def contents(operation: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(status or "request", media type, content) of a body and its answers."""
    found = [("request", kind, one) for kind, one in operation.get("requestBody", {}).get("content", {}).items()]
    for status, answer in operation["responses"].items():
        found += [(status, kind, one) for kind, one in answer.get("content", {}).items()]
    return found


def test_every_parameter_body_and_answer_has_examples_that_its_schema_allows() -> None:
    schemas = components()["schemas"]
    for path, method, operation in operations(whole()):
        for parameter in operation.get("parameters", ()):
            assert allows(parameter["schema"], schemas).is_valid(parameter["example"]), (
                method,
                path,
                parameter["name"],
            )
        for where, kind, content in contents(operation):
            assert content["examples"], (method, path, where)
            assert where != "200" or kind != "application/json" or "answer" in content["examples"]
            its = allows(content["schema"], schemas)
            for example in content["examples"].values():
                shared = components()["examples"].get(example.get("$ref", "").rpartition("/")[2])
                assert shared is None or shared["value"]["status"] == int(where)
                value = (shared or example)["value"]
                assert its.is_valid(value), (method, path, where, next(its.iter_errors(value)))


def schemas_below(base: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models of bodies and answers, by name."""
    found: dict[str, type[BaseModel]] = {}
    for kind in base.__subclasses__():
        found |= schemas_below(kind)
        if kind.__module__.startswith("service.schemas."):
            found[kind.__name__] = kind
    return found


def test_examples_are_bodies_that_the_service_takes_and_answers_that_it_gives() -> None:
    models = schemas_below(BaseModel)
    seen = set()
    for _, _, operation in operations(whole()):
        its = recorded().get(operation["operationId"])
        if its is None:
            continue
        seen.add(operation["operationId"])
        for _, kind, content in contents({**operation, "responses": {}}):
            if kind != "application/json":
                continue  # lines of JSON, which its answer reports on
            body = models[content["schema"]["$ref"].rpartition("/")[2]]
            for example in its["requests"].values():
                parse(body, TypeAdapter(dict).dump_json(example))
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        names = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema])]
        fitting = [
            name
            for name in names
            if allows({"$ref": f"#/components/schemas/{name}"}, components()["schemas"]).is_valid(its["answer"])
        ]
        assert fitting, operation["operationId"]
        models[fitting[0]].model_validate(its["answer"], strict=False)
    assert seen == set(recorded()), "examples of operations that are gone"


# -- headers and servers


def test_every_answer_names_its_headers() -> None:
    for path, method, operation in operations(whole()):
        for status, answer in operation["responses"].items():
            assert "X-Request-Id" in answer["headers"], (method, path, status)
            assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))
            assert ("WWW-Authenticate" in answer["headers"]) == (status == "401")
            for name, header in answer["headers"].items():
                assert header == {"$ref": f"#/components/headers/{name}"}
                assert name in components()["headers"]


@asynchronous
async def test_answers_have_the_headers_that_the_document_names() -> None:
    async with serving(api_keys="shop:k1") as service:
        refused = await service.client.post("/v1/recommend", json={"user_id": "u"})
        away = await service.client.post(
            "/v1/events", headers={"X-API-Key": "k1"},
            json={"events": [{"user_id": "u", "item_id": "3", "type": "view", "timestamp": 1_700_000_000}]},
        )  # fmt: skip
        encoded = await service.client.post(
            "/v1/recommend", headers={"X-API-Key": "k1", "Content-Encoding": "br"}, content=b"x"
        )
    for answer, status, name in (
        (refused, 401, "WWW-Authenticate"),
        (away, 503, "Retry-After"),
        (encoded, 415, "Accept-Encoding"),
    ):
        assert answer.status_code == status
        schema = components()["headers"][name]["schema"]
        value: Any = int(answer.headers[name]) if schema["type"] == "integer" else answer.headers[name]
        assert allows(schema, {}).is_valid(value)
        assert len(answer.headers["x-request-id"]) <= components()["headers"]["X-Request-Id"]["schema"]["maxLength"]


@asynchronous
async def test_the_document_of_a_version_names_it_as_its_server() -> None:
    async with serving() as service:
        named = (await service.client.get("/v1/openapi.json")).json()
        assert named["servers"] == [{"url": "/v1"}]
        assert "servers" not in (await service.client.get("/openapi.json")).json()
        for path in named["paths"]:
            assert not path.startswith("/v1")


@asynchronous
async def test_the_page_opens_on_what_frontends_call_and_shows_examples() -> None:
    async with serving() as service:
        page = (await service.client.get("/v1/docs")).text
    found = re.findall("<h3><code>(.*?)</code></h3>", page)
    assert found[0] == "POST /recommend"
    groups = re.findall('<h2 id="(.*?)">', page)
    assert groups == [tag for tag in TAGS if tag in groups]
    assert page.index("Example: a user") < page.index("Answer: RecommendAnswer")
    assert page.count("<section") == page.count("</section>")


def test_the_document_is_made_once_and_the_same_each_time() -> None:
    app = application()
    first = app.openapi()
    assert first == whole()
    assert app.openapi() is first
