"""One artefact in a fresh process, as JSON: `python -m loadtests.engine.probe DIR`.

Measures seconds to open it, memory, the first use of filters, a change of stock, new items, and the rungs below the
model. Memory is the process's own pages (anonymous), and the mapped pages it has touched, which processes share.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN
from service.artifact.manifest import FILES
from service.catalogue.updates import CatalogueUpdates
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.fallback import Constraints, Fallback
from service.engine.jobs import DecodeJob, ListRequest
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

NEW_ITEMS = 1000
REQUESTS = 200
_MIB = 2**20


def memory_mib() -> dict[str, float]:
    """Returns resident memory: own pages and mapped files."""
    found = {}
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            found[name] = round(int(value.split()[0]) / 1024, 1)
    return found


def seconds(work: Callable[[], object]) -> float:
    """Returns the seconds that the work takes."""
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 4)


def probe(folder: Path) -> dict[str, Any]:
    """Measures one artefact."""
    for name in FILES:  # from the page cache: what a disk takes is the disk's
        (folder / name).read_bytes()
    found: dict[str, Any] = {"artefact MiB": round(sum((folder / n).stat().st_size for n in FILES) / _MIB, 1)}
    before = memory_mib()
    opened: list[Artifact] = []
    found["open without checksums, s"] = seconds(lambda: opened.append(Artifact.open(folder, checksums=False)))
    found["open with checksums, s"] = seconds(lambda: Artifact.open(folder))
    engines: list[Engine] = []
    found["engine from an open artefact, s"] = seconds(
        lambda: engines.append(Engine(opened[0], device="cpu", threads=1))
    )
    engine = engines[0]
    found["warm-up, s"] = seconds(engine.warm_up)
    after = memory_mib()
    found["own memory, MiB"] = round(after["RssAnon"] - before["RssAnon"], 1)
    found["mapped memory touched, MiB"] = round(after["RssFile"] - before["RssFile"], 1)
    found |= filters(engine) | below_the_model(engine.artifact) | updates(engine)
    return found


def decode(engine: Engine, number: int, filters: int = 0) -> None:
    """Decodes one list from a random state."""
    network = engine.artifact.network
    h = np.random.default_rng(number).standard_normal(network["d_model"]).astype(np.float32)
    request = ListRequest(
        context=np.zeros(network["n_slots"], np.int64),
        gap_ms=GAP_UNKNOWN,
        decoding=Decoding("beam"),
        k=10,
        filter_id=filters,
    )
    result = engine.decode([DecodeJob(h=h, request=request)])[0]
    if isinstance(result, Exception):
        raise result


def filters(engine: Engine) -> dict[str, float]:
    """Measures the slowest first use of several filters, and a list through a filter that is ready."""
    catalogue = engine.artifact.catalogue
    asked = [
        {"category": [catalogue.categories(0)[0]]},
        {"category": [catalogue.categories(1)[-1]]},
        {"category": list(catalogue.categories(2)), "brand": ["Brand 0", "Brand 1"]},
        {"brand": ["Brand 2"]},
    ]
    first = [seconds(lambda wanted=wanted: engine.filter_id(wanted)) for wanted in asked]  # type: ignore[misc]
    numbers = [engine.filter_id(wanted) for wanted in asked]
    listed = [seconds(lambda n=n: decode(engine, n, n)) for n in numbers for _ in range(20)]  # type: ignore[misc]
    return {
        "first use of a filter, ms": round(max(first) * 1000, 2),
        "list through a filter p50, ms": round(float(np.median(listed)) * 1000, 3),
    }


def below_the_model(artifact: Artifact) -> dict[str, float]:
    """Times the fallback rungs."""
    fallback = Fallback.of(artifact.item_cf, artifact.popularity, Ranker.of(artifact.signals, artifact.ranker))
    rng = np.random.default_rng(0)
    n = artifact.trie.n_items
    taken: dict[str, list[float]] = {"item-CF list p50, ms": [], "popular list, one category p50, ms": []}
    rare = artifact.catalogue.allowed({"category": [artifact.catalogue.categories(1)[-1]]})
    for _ in range(REQUESTS):
        history = UserHistory.of_items(rng.integers(0, n, 50))
        excluded = np.unique(history.items)
        taken["item-CF list p50, ms"].append(
            seconds(lambda h=history, e=excluded: fallback.by_history(h, 10, Constraints(None, e)))  # type: ignore[misc]
        )
        taken["popular list, one category p50, ms"].append(
            seconds(lambda e=excluded: fallback.popular(10, Constraints(rare, e)))  # type: ignore[misc]
        )
    return {name: round(float(np.median(values)) * 1000, 3) for name, values in taken.items()}


def updates(engine: Engine) -> dict[str, float]:
    """Measures a change of stock with four filters in use, new items in the delta table, and their trie."""
    catalogue = engine.artifact.catalogue
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "updates.jsonl"
        follower = CatalogueUpdates(engine.artifact, file, engine.update)
        gone = [{"item_id": catalogue.item_id(item), "in_stock": False} for item in range(100)]
        like = [catalogue.item_id(7 * n % catalogue.n_exported) for n in range(NEW_ITEMS)]
        new = [{"item_id": f"new-{n}", "like": [item_id]} for n, item_id in enumerate(like)]
        file.write_text("".join(json.dumps(row) + "\n" for row in gone), "utf-8")
        stock = seconds(follower.poll)
        file.write_text("".join(json.dumps(row) + "\n" for row in gone + new), "utf-8")
        arrived = seconds(follower.poll)
        with_delta = [seconds(lambda n=n: decode(engine, n)) for n in range(REQUESTS)]  # type: ignore[misc]
        rebuilt = seconds(follower.rebuild)
    if len(engine.artifact.trie.leaf_item) != catalogue.n_exported + NEW_ITEMS:
        raise RuntimeError("some new items are missing from the trie")
    return {
        "100 items out of stock, s": stock,
        "1,000 new items served, s": arrived,
        "list beside 1,000 new items p50, ms": round(float(np.median(with_delta)) * 1000, 3),
        "1,000 new items in the trie, s": rebuilt,
        "largest branching after": max(engine.artifact.trie.branching),
    }


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]))))  # noqa: T201 - its answer
