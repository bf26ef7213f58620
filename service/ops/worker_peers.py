"""The metrics of several workers as one exposition.

Workers share a port, and whoever asks it for `/metrics` reaches one of them by chance. That one asks all of them, each
at the port it has for itself, and adds up: counters and histograms are summed, gauges as their meaning demands. The
counts are right at every moment, and nothing is kept in files between the processes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence

import httpx
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from service.common.errors import WorkerAway
from service.common.single_flight import Held

# Gauges that count something; of the others (a state, a version, a lag, a rate) the largest speaks for all.
_SUMMED_GAUGES = frozenset({"gpt4rec_inflight", "gpt4rec_queue_depth"})
_TIMEOUT_S = 2.0
# Shorter than servers keep an idle connection, so that none is used as it closes.
_KEEPALIVE_S = 2.0

_Key = tuple[str, tuple[tuple[str, str], ...]]


def worker_urls(host: str, shared_port: int, workers: int) -> list[str]:
    """Where each worker tells its own metrics."""
    return own_urls(host, shared_port, workers, "/metrics")


def own_urls(host: str, shared_port: int, workers: int, path: str) -> list[str]:
    """Where each worker answers alone: the ports above the shared one."""
    shown = f"[{host}]" if ":" in host else host
    return [f"http://{shown}:{shared_port + 1 + number}{path}" for number in range(workers)]


def bearer(secret: str | None) -> dict[bytes, bytes]:
    """The header that presents a secret as it came: header bytes are Latin-1, whatever is in them."""
    return {} if secret is None else {b"Authorization": b"Bearer " + secret.encode("latin-1")}


class Peers:
    """One process's way to the workers beside it: one client, opened when it is first needed."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._scrape: Held[bytes] = Held()

    async def close(self) -> None:
        self._scrape.cancel()
        if self._client is not None:
            await self._client.aclose()

    @property
    def client(self) -> httpx.AsyncClient:
        if self._client is None:
            # Nothing is asked over TLS, and reading the certificates of the system would hold the event loop up.
            empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            limits = httpx.Limits(keepalive_expiry=_KEEPALIVE_S)
            self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=empty, limits=limits)
        return self._client

    async def metrics(self, urls: Sequence[str], secret: str | None = None) -> bytes:
        """The workers' metrics as one exposition, asked for with a secret that gave access, None where none is needed.
        Who asks while others are waiting for one gets the same. Raises WorkerAway where a worker does not answer."""
        return await self._scrape.get(lambda: self._merged(urls, secret))

    async def _merged(self, urls: Sequence[str], secret: str | None) -> bytes:
        return merge(await self.fetch(urls, secret))

    async def fetch(self, urls: Sequence[str], secret: str | None = None) -> list[str]:
        """The expositions of the workers. Raises WorkerAway where one does not answer."""
        try:
            answers = await asyncio.gather(*(self.client.get(url, headers=bearer(secret)) for url in urls))
            return [answer.raise_for_status().text for answer in answers]
        except httpx.HTTPError as error:
            raise WorkerAway(f"{type(error).__name__}: {error}") from error


def merge(expositions: Iterable[str]) -> bytes:
    """One exposition of them all."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, float]] = {}
    for text in expositions:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            found = values.setdefault(family.name, {})
            together = _together(family)
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                found[key] = together(found[key], sample.value) if key in found else sample.value
    for name, family in families.items():
        family.samples = [Sample(key, dict(labels), value) for (key, labels), value in values[name].items()]
    registry = CollectorRegistry()
    registry.register(_Fixed(families.values()))
    return generate_latest(registry)


def _together(family: Metric) -> Callable[[float, float], float]:
    if family.type == "gauge" and family.name not in _SUMMED_GAUGES:
        return max
    return lambda one, other: one + other


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families
