"""What one request uses of what is deprecated: the headers of its answer, its log line and the metric."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.common.request_context import RequestContext
from service.metrics.service_metrics import Metrics
from service.schemas.deprecations import USES, Deprecations, Uses


class DeprecatedCall:
    """One request while anything is deprecated. What parses its body notes what the body uses.

    Args:
        registry: What is deprecated.
        scope: Of the request.
        call: Its context.
        version: The version of the API that it names, "" for none.
    """

    def __init__(self, registry: Deprecations, scope: Scope, call: RequestContext, version: str) -> None:
        self._uses = Uses(registry)
        self._scope, self._call, self._version = scope, call, version
        USES.set(self._uses)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Returns the headers of the answer. Call it when the answer begins: then the route is known."""
        route = getattr(self._scope.get("route"), "path_format", None)
        if route is not None:
            query = dict(parse_qsl(self._scope["query_string"].decode("latin-1"), keep_blank_values=True))
            registry = self._uses.registry
            self._uses.add(registry.in_call(self._scope["method"], route, self._version, query))
        return self._uses.headers(self._call.prefix)

    def count(self, metrics: Metrics, owner: Callable[[Scope], str]) -> None:
        """Counts and logs what was used.

        Args:
            metrics: Counts it.
            owner: Returns the name of the key or token of a request, "" for none.
        """
        if found := self._uses.found:
            self._call.facts["deprecated"] = sorted(found)
            name = owner(self._scope)
            for one in found:
                metrics.deprecated_uses.labels(one, name).inc()
