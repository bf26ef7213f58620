"""A caller that invents filters: each takes a mask over the whole catalogue, if it is built."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import orjson

from loadtests.chaos.flood import HICCUPS, Flood
from loadtests.chaos.scene import Fault, Scene
from loadtests.harness.scraped import scraped
from loadtests.load.open_loop_driver import Arrival, poisson
from service.artifact.artifact import Artifact
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import FACETS

_RATE, _SECONDS = 100.0, 10.0
_MEMORY_MIB = 256
_COUNTS = ("built", "evicted", "refused_caller", "refused_total", "late", "failed")


def invented(scene: Scene) -> None:
    """Sends a new filter with every request: a set of values that items have, and one that none has."""
    service = scene.serve()
    catalogue = Artifact.open(scene.artifact).catalogue
    seconds = _SECONDS / 5 if scene.quick else _SECONDS
    filters = list(itertools.islice(_filters(catalogue), int(2 * _RATE * seconds)))
    flood = Flood(service.url, _arrivals, filters, seconds)
    with scene.load(service.url, stamped=True), scene.fault(reasons=HICCUPS):
        before = service.rss_mib()
        answered = flood.run()
        grown = service.rss_mib() - before
    counts = _builds(service.url)
    scene.notes.append(f"of the flood: {answered}; filters {counts}; memory grew by {grown:.0f} MiB")
    scene.promise("errors {}" in answered, "the flood itself was not answered")
    scene.promise(grown < _MEMORY_MIB, f"memory grew by {grown:.0f} MiB, more than {_MEMORY_MIB}")
    scene.promise(not counts.get("failed"), "a filter could not be built")


def _filters(catalogue: Catalogue) -> Iterator[dict[str, list[str]]]:
    """Different sets of values of one field, each with a value that no item has."""
    number = itertools.count()
    for size in (2, 3, 4):
        for facet in FACETS:
            values = list(itertools.islice(catalogue.columns.facets[facet].names, 40))
            for chosen in itertools.combinations(values, size):
                yield {facet: [*chosen, f"z{next(number)}"]}


def _arrivals(filters: list[dict[str, list[str]]], seconds: float) -> list[Arrival]:
    return [
        Arrival(
            due, "/recommend", orjson.dumps({"user_id": "filters", "k": 10, "filter": filters[number % len(filters)]})
        )
        for number, due in enumerate(poisson(np.random.default_rng(0), _RATE, seconds))
    ]


def _builds(url: str) -> dict[str, int]:
    """What became of new filters, by outcome."""
    series = scraped(url)
    names = {outcome: f'gpt4rec_filter_builds_total{{outcome="{outcome}"}}' for outcome in _COUNTS}
    return {outcome: int(series[name]) for outcome, name in names.items() if name in series}


FAULTS = (
    Fault("clients filters", "client", f"one caller asks {_RATE:.0f} times a second for {_SECONDS:.0f} s, with a new "
          "filter each time", "others are served as if nothing were; memory grows within its bound", invented),
)  # fmt: skip
