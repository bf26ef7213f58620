"""The OpenAPI document of a service with everything on, and what its schemas allow."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
from fastapi import FastAPI

from service.app import create_app
from service.schemas.deprecations import DEPRECATIONS, Deprecations
from service.settings.service_settings import Settings


def application(deprecations: Deprecations = DEPRECATIONS) -> FastAPI:
    """With every route and every kind of secret."""
    settings = Settings.model_validate({"playground": True, "api_keys": "shop:secret", "ops_tokens": "alice:secret"})
    return create_app(settings, deprecations=deprecations)


def document(deprecations: Deprecations) -> dict[str, Any]:
    """The document where something is deprecated."""
    return application(deprecations).openapi()


@cache
def whole() -> dict[str, Any]:
    """The document with nothing deprecated but what is; do not change it."""
    return application().openapi()


_MADE: dict[tuple[str, int], jsonschema_rs.Validator] = {}


def allows(schema: dict[str, Any], schemas: dict[str, Any]) -> jsonschema_rs.Validator:
    """What a schema allows, which may refer to others by name. Validators are kept: most answers share a few."""
    key = json.dumps(schema), id(schemas)
    if key not in _MADE:
        _MADE[key] = jsonschema_rs.validator_for({**schema, "components": {"schemas": schemas}})
    return _MADE[key]
