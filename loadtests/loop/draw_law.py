"""Draws many lists with the sampler's graph, and compares them with the law that is recorded of them.

    python -m loadtests.loop.draw_law --artifact artifacts/latest [--draws 100000] [--record]

Each position of a list has a law, given the items above it. By Rosenblatt's transformation (1952) the place of the item
within that law is uniform, independently of the other positions, if the law is right; a place within the item's own
share is drawn at random. A chi-square test over equal bins judges each position, whatever the lists are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import stats

from loadtests.common import results
from loadtests.loop import criteria
from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS
from service.cli.outermost import run_command
from service.engine.decode.draws import first_log_probs, nucleus
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, EncodeJob, ListRequest
from service.engine.run_groups import result_of

BINS = 20
# Lists of one run of the engine.
_BATCH = 100
DECODINGS = (
    Decoding("temperature", temperature=1.0),
    Decoding("temperature", temperature=0.5),
    Decoding("top_p", top_p=0.9),
)


@dataclass(frozen=True, slots=True)
class LawCheck:
    """How the lists compare with their law.

    Attributes:
        draws: Number of lists.
        p_value: The smallest p-value of all positions, times their number: what chance gives if the law is right.
        off_by: The largest difference of a recorded log-propensity from the law of its candidates.
    """

    draws: int
    p_value: float
    off_by: float


def check_law(engine: Engine, h: FloatArray, request: ListRequest, draws: int, seed: int = 0) -> LawCheck:
    """Draws lists that differ in their seed alone, and compares them with their law.

    Args:
        engine: The engine.
        h: [d] hidden state.
        request: What to draw.
        draws: Number of lists.
        seed: First of the seeds.

    Raises:
        ValueError: The lists are not drawn from the same candidates, or not drawn at all.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((request.k, BINS), np.int64)
    off_by = 0.0
    for order, logged, draw in _drawn(engine, h, request, range(seed, seed + draws)):
        log_probs = first_log_probs(draw.scores, request.decoding)
        places, law = _places(log_probs, nucleus(log_probs, request.decoding.nucleus), order, rng)
        off_by = max(off_by, float(np.abs(law - logged).max()))
        for position, column in enumerate(places.T):
            counts[position] += np.bincount(np.minimum((column * BINS).astype(np.int64), BINS - 1), minlength=BINS)
    p_values = [stats.chisquare(row).pvalue for row in counts if row.any()]
    return LawCheck(draws, min(1.0, float(min(p_values)) * len(p_values)), off_by)


def _drawn(
    engine: Engine, h: FloatArray, request: ListRequest, seeds: range
) -> Iterator[tuple[IntArray, Float64Array, Draw]]:
    """Yields, for many lists at a time, the places of their items [n, k], the recorded law [n, k], and their draw."""
    first: Draw | None = None
    for start in range(0, len(seeds), _BATCH):
        jobs = [DecodeJob(h=h, request=replace(request, seed=seed)) for seed in seeds[start : start + _BATCH]]
        lists = [result_of(found) for found in engine.decode(jobs)]
        place: dict[int, int] = {}
        for one in lists:
            draw = one.draw
            if draw is None or draw.log_propensities is None:
                raise ValueError("the lists are not drawn: ask for the strategy top_p or temperature")
            first = first or draw
            if not np.array_equal(first.items, draw.items) or not np.allclose(first.scores, draw.scores, atol=1e-4):
                raise ValueError("the lists are not drawn from the same candidates")
            place = place or {item: at for at, item in enumerate(draw.items.tolist())}
        order = np.array([[place[item] for item in one.items.tolist()] for one in lists])
        assert first is not None  # noqa: S101 - a batch has a list
        yield order, np.array([one.log_propensities for one in lists], np.float64), first


def _places(
    log_probs: Float64Array, inside: BoolArray, order: IntArray, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """Returns the place of each item within its law, uniform if it is right, and the logarithm of its share: [n, k]."""
    # The likeliest first: a law that is too flat or too steep then moves all places to one side.
    by_weight = np.argsort(-log_probs)
    log_probs, inside, order = log_probs[by_weight], inside[by_weight], np.argsort(by_weight)[order]
    n, k = order.shape
    left, rows = np.ones((n, len(log_probs)), np.bool_), np.arange(n)
    places, law = np.empty((n, k)), np.empty((n, k))
    for position in range(k):
        in_nucleus = (left & inside).any(axis=1, keepdims=True)
        may = left & (inside == in_nucleus)
        weights = np.where(may, log_probs, -np.inf)
        weights = np.exp(weights - weights.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        item = order[:, position]
        share = shares[rows, item]
        below = np.cumsum(shares, axis=1)[rows, item] - share
        places[:, position] = below + rng.uniform(size=n) * share
        with np.errstate(divide="ignore"):  # an item that the law excludes
            law[:, position] = np.log(share)
        left[rows, item] = False
    return places, law


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    draws: Annotated[int, typer.Option(min=100, help="Number of lists of each decoding.")] = 100_000,
    k: Annotated[int, typer.Option(min=1, max=100, help="Length of the lists.")] = 10,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/loop.json.")] = False,
) -> None:
    """Compare drawn lists with the law that is recorded of them."""
    engine = Engine.open(artifact, device="cpu")
    try:
        h = result_of(engine.encode([EncodeJob(events=NO_EVENTS, from_start=True)])[0]).h
        context = np.zeros(engine.artifact.network["n_slots"], np.int64)
        found = []
        for decoding in DECODINGS:
            request = ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=decoding, k=k)
            found.append(check_law(engine, h, request, draws))
            typer.echo(f"{decoding}: p = {found[-1].p_value:.3f}, law off by {found[-1].off_by:.1e}")
    finally:
        engine.close()
    p_value = min(1.0, min(one.p_value for one in found) * len(found))
    off_by = max(one.off_by for one in found)
    if record:
        command = f"python -m loadtests.loop.draw_law --artifact {artifact.name} --draws {draws} --record"
        results.record(results.LOOP, criteria.row(criteria.DRAWS, p_value, "p", command))
        results.record(results.LOOP, criteria.row(criteria.LAW, off_by, "nat", command))
    raise typer.Exit(int(p_value < criteria.LIMITS[criteria.DRAWS]["at_least"]))


if __name__ == "__main__":
    run_command(main)
