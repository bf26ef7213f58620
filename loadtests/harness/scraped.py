"""The metrics of a running service."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

_WAIT_S = 10.0


def scraped(url: str, headers: Mapping[str, str] | None = None) -> dict[str, float]:
    """Returns the value of each series of /metrics, by its name with its labels.

    Args:
        url: URL of the service.
        headers: Headers of the request, such as that of a token.

    Raises:
        httpx.HTTPError: The service does not answer, or refuses.
    """
    text = httpx.get(f"{url}/metrics", headers=headers, timeout=_WAIT_S).raise_for_status().text
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}
