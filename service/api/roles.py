"""Which routes a process has, by its role."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from fastapi.routing import APIRoute

# What probes, scrapers and operators ask of a process that answers no frontend.
_WITHOUT_FRONTEND = frozenset({"/healthz", "/readyz", "/version", "/metrics", "/ops/status", "/ops/figures"})


def of_role(role: str, routers: Sequence[APIRouter]) -> list[APIRouter]:
    """Returns the routers with the routes of a role: the role `encode` has no route of frontends."""
    if role != "encode":
        return list(routers)
    return [APIRouter(routes=[r for r in one.routes if _kept(r)]) for one in routers]


def _kept(route: object) -> bool:
    return isinstance(route, APIRoute) and route.path in _WITHOUT_FRONTEND
