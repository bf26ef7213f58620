"""The metrics of several workers as one exposition.

Workers share a port, and a request for `/metrics` reaches any one of them. That worker asks all workers, each on its
own port, and merges the answers: counters and histograms are summed, gauges are summed or their largest value is
taken. Of the exemplars of a bucket the latest is kept. The counts are always up to date, and the processes share no
files.
"""

from __future__ import annotations

import asyncio
import operator
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from service.common.errors import WorkerAway
from service.common.single_flight import SingleFlight
from service.metrics.text_formats import PLAIN, TextFormat

# Gauges that count something are summed; of the others (a state, a version, a lag, a rate) the largest value is taken.
_SUMMED_GAUGES = frozenset(
    f"gpt4rec_{name}"
    for name in (
        "inflight",
        "queue_depth",
        "filters_held",
        "filter_bytes",
        "kept_list_bytes",
        "unanswered_bytes",
        "encode_waiting",
        "exposures_waiting",
        "watched",
    )
)
_TIMEOUT_S = 2.0
# Shorter than the servers keep an idle connection, so that none is used while it closes.
_KEEPALIVE_S = 2.0

_Key = tuple[str, tuple[tuple[str, str], ...]]


def worker_urls(host: str, shared_port: int, workers: int, below: str = "") -> list[str]:
    """Returns the URLs at which each worker serves its own metrics; those of a space are below its path."""
    return own_urls(host, shared_port, workers, f"{below}/metrics")


def own_urls(host: str, shared_port: int, workers: int, path: str) -> list[str]:
    """Returns the URL of a path on each worker's own port; these ports follow the shared one."""
    shown = f"[{host}]" if ":" in host else host
    return [f"http://{shown}:{shared_port + 1 + number}{path}" for number in range(workers)]


def bearer(secret: str | None) -> dict[bytes, bytes]:
    """Returns the header that presents a secret, byte for byte: headers are Latin-1."""
    return {} if secret is None else {b"Authorization": b"Bearer " + secret.encode("latin-1")}


class Peers:
    """Calls to the other workers, through one client that is opened when it is first needed."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        # By the format and the URLs: each space has metrics of its own.
        self._scrapes: defaultdict[tuple[str, ...], SingleFlight[bytes]] = defaultdict(SingleFlight)

    async def close(self) -> None:
        """Cancels calls in progress and closes the client."""
        for scrape in self._scrapes.values():
            scrape.cancel()
        if self._client is not None:
            await self._client.aclose()

    @property
    def client(self) -> httpx.AsyncClient:
        """The HTTP client."""
        if self._client is None:
            # No call uses TLS, and reading the certificates of the system would block the event loop.
            empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            limits = httpx.Limits(keepalive_expiry=_KEEPALIVE_S)
            # On one machine, compression would cost more than it saves.
            plain = {"Accept-Encoding": "identity"}
            self._client = httpx.AsyncClient(
                timeout=_TIMEOUT_S, trust_env=False, verify=empty, limits=limits, headers=plain
            )
        return self._client

    async def metrics(self, urls: Sequence[str], secret: str | None = None, form: TextFormat = PLAIN) -> bytes:
        """Returns the metrics of the workers as one exposition; concurrent callers share one round of calls.

        Args:
            urls: Where each worker serves its metrics.
            secret: The token to present; None if /metrics is open.
            form: The format of the text.

        Raises:
            WorkerAway: A worker does not answer.
        """
        return await self._scrapes[form.accept, *urls].get(lambda: self._merged(urls, secret, form))

    async def _merged(self, urls: Sequence[str], secret: str | None, form: TextFormat) -> bytes:
        return merge(await self.fetch(urls, secret, form), form)

    async def fetch(self, urls: Sequence[str], secret: str | None = None, form: TextFormat = PLAIN) -> list[str]:
        """Returns the exposition of each worker; arguments and errors as of `metrics`."""
        headers = {b"Accept": form.accept.encode(), **bearer(secret)}
        try:
            answers = await asyncio.gather(*(self.client.get(url, headers=headers) for url in urls))
            return [answer.raise_for_status().text for answer in answers]
        except httpx.HTTPError as error:
            raise WorkerAway(f"{type(error).__name__}: {error}") from error


def merge(expositions: Iterable[str], form: TextFormat = PLAIN) -> bytes:
    """Merges several expositions of one format into one."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, float]] = {}
    exemplars: dict[_Key, Exemplar] = {}
    for text in expositions:
        for family in form.read(text):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged = values.setdefault(family.name, {})
            together = _together(family)
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                # OpenMetrics has the time at which a series began among its samples.
                both = max if sample.name.endswith("_created") else together
                merged[key] = both(merged[key], sample.value) if key in merged else sample.value
                if sample.exemplar is not None:
                    exemplars[key] = _latest(exemplars.get(key), sample.exemplar)
    for name, family in families.items():
        family.samples = [
            Sample(key, dict(labels), value, None, exemplars.get((key, labels)))
            for (key, labels), value in values[name].items()
        ]
    return form.text_of(families.values())


def _latest(known: Exemplar | None, other: Exemplar) -> Exemplar:
    return other if known is None or float(other.timestamp or 0.0) >= float(known.timestamp or 0.0) else known


def _together(family: Metric) -> Callable[[float, float], float]:
    if family.type == "gauge" and family.name not in _SUMMED_GAUGES:
        return max
    return operator.add
