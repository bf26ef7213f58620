"""How wide the decoder's runs must be: the smallest size whose lists equal those of a wide run on validation.

Where the whole catalogue is scored, the best items by that score join the beam's, and a narrow beam loses nothing. How
narrow it may be depends on the weights of path, dense score and signals, so the export asks: it decodes lists of
validation questions as they are served, with their exclusions, without a filter and with filters of a few densities,
and compares them place by place.

A planned size (`service.engine.decoding`) belongs to a strategy and a length of the list. Lists of `beam` are compared
with those of the widest run there is. A list of `greedy` is by its meaning that of a narrow beam, and is compared with
the one of its planned size; so is a sampled list, drawn with the same seed. Sizes are tried from the cheapest on, and
none costs more than planned. A planned size for which none is found stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from model.data.split import Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import EngineJobs, batches_of
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.graphs.run_sizes import FORMAT, RunSizes, Size
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import FACETS
from service.artifact.items.filter_conditions import Filters
from service.engine.decoding import MAX_WIDTH, WIDTH_BUCKETS, Decoding, joined_width
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob
from service.engine.run_groups import result_of

# Validation questions that are asked; with fewer than the least, nothing is measured.
QUESTIONS, LEAST_QUESTIONS = 256, 100
# Share of the places that must be the same, under each filter.
EQUAL = 0.999
# Shares of the items that the filters should leave, and by which factor one may miss them.
DENSITIES, WITHIN = (0.3, 0.1, 0.01), 3.0
# Scores closer than this are equal: such items may trade places.
_TIED = 1e-5

# Strategy and length of the lists that are compared: one for each planned size but the smallest two. A policy that
# demands more candidates gets more to join these.
_BEAM, _GREEDY = Decoding("beam", beam_width=5, demanded=False), Decoding("greedy")
_DRAWN = Decoding("temperature", temperature=0.7)
LISTS: tuple[tuple[Decoding, int], ...] = (
    (_BEAM, 5), (_BEAM, 10), (_BEAM, 20), (_GREEDY, 10), (_GREEDY, 20), (_GREEDY, 50), (_GREEDY, 100), (_DRAWN, 10),
)  # fmt: skip
_WIDEST = Size(MAX_WIDTH, MAX_WIDTH)
# Widths that are tried. Below the last, the time of a run hardly changes any more.
_WIDTHS = (4, *WIDTH_BUCKETS)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tried:
    """A size that was tried: the lowest share of equal places under any filter that was asked about."""

    width: int
    joined: int
    equal: float


@dataclass(frozen=True)
class Found:
    """What was found for one planned size.

    Attributes:
        strategy: Strategy of the lists.
        k: Their length.
        sampled: Whether they are drawn.
        planned: The size without a measurement.
        compared_with: The size whose lists had to be equalled.
        planned_equal: Share of the places at which the planned size equals that.
        tried: The sizes tried, from the cheapest on.
        size: The first that equals it; the planned one if none does.
    """

    strategy: str
    k: int
    sampled: bool
    planned: Size
    compared_with: Size
    planned_equal: float
    tried: tuple[Tried, ...]
    size: Size


@dataclass(frozen=True)
class Measured:
    """What an export says of the sizes of its runs.

    Attributes:
        sizes: The runs that are narrower than planned.
        about: How they were found, for the manifest.
    """

    sizes: RunSizes
    about: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Returns the entry `search` of the manifest."""
        return {"format": FORMAT, **self.sizes.to_json(), **self.about}

    def note(self) -> str | None:
        """Returns a sentence about the lists of ten by beam, for a reader of the command's output."""
        if not self.about.get("lists"):
            return None
        planned = _planned(_BEAM, 10)
        size = self.sizes.of(planned, sampled=False)
        if size == planned:
            return None
        return (
            f"a list of ten by beam keeps {size.width} nodes a level instead of {planned.width}: on validation it "
            "equals that of the widest beam"
        )


def forced_width(width: int) -> Measured:
    """Returns sizes that keep `width` nodes a level, without a measurement; no run becomes wider than planned."""
    planned = {_planned(decoding, k) for decoding, k in LISTS if not decoding.sampled}
    sizes = {size: Size(width, size.joined) for size in planned if size.width > width}
    return Measured(RunSizes(sizes), {"forced_width": width})


def measure_sizes(engine: Engine, split: Split, *, dense: bool, say: Say = lambda _: None) -> Measured:
    """Finds the smallest sizes of the runs of an artefact.

    Args:
        engine: The written graphs with the weights that will be served; its own sizes are set for the measurement, and
            at the end to what was found.
        split: The split of the run.
        dense: Whether the graphs score the whole catalogue, or the cells of it that matter; if not, no run can be
            narrower.
        say: Receives what is being done.

    Raises:
        ServiceError: A run of a graph failed.
    """
    questions = split.valid.sample(QUESTIONS)
    if not dense or len(questions) < LEAST_QUESTIONS:
        few = f"{len(questions)} questions of validation are too few, {LEAST_QUESTIONS} are needed"
        return Measured(RunSizes(), {"why": few if dense else "nothing joins the beam that would hold the list"})
    filters = filters_of(engine.artifact.catalogue)
    asked = _Questions(engine, split)
    found = []
    for number, (decoding, k) in enumerate(LISTS):
        say(f"measuring how wide runs must be: {number} of {len(LISTS)} kinds of lists")
        found.append(_find(asked, decoding, k, [said for said, _ in filters]))
    narrower = [one for one in found if one.size != one.planned]
    sizes = RunSizes(*({one.planned: one.size for one in narrower if one.sampled is drawn} for drawn in (False, True)))
    engine.set_run_sizes(sizes)
    about = {
        "questions": len(questions),
        "equal_at_least": EQUAL,
        "filters": [{"filter": said, "items": round(share, 4)} for said, share in filters],
        "lists": [asdict(one) for one in found],
    }
    return Measured(sizes, about)


def filters_of(catalogue: Catalogue) -> list[tuple[Filters, float]]:
    """Returns no filter, and the filter by one value that comes nearest to each of `DENSITIES`, with their shares."""
    found: list[tuple[Filters, float]] = [({}, 1.0)]
    facets = {name: catalogue.columns.facets[name] for name in FACETS if name in catalogue.columns.facets}
    for wanted in DENSITIES:
        best: tuple[float, Filters, float] = (math.log(WITHIN), {}, 0.0)
        for name, facet in facets.items():
            shares = np.diff(facet.item_start) / max(1, catalogue.n_exported)
            if len(shares) == 0:
                continue
            off = np.abs(np.log(np.maximum(shares, 1e-9) / wanted))
            place = int(off.argmin())
            if off[place] < best[0]:
                best = (float(off[place]), {name: [facet.names.text(place)]}, float(shares[place]))
        if best[1] and all(best[1] != said for said, _ in found):
            found.append((best[1], best[2]))
    return found


def equal_places(want: _Lists, got: _Lists) -> float:
    """Returns the share of the places of `want` at which `got` has the same item, or one of the same score."""
    places = (want.items >= 0) | (got.items >= 0)
    same = want.items == got.items
    # Where the lists differ: the place of got's item in want, whose score may equal that of the item at this place.
    matches = want.items[:, None, :] == got.items[:, :, None]
    score = np.where(matches.any(axis=2), np.take_along_axis(want.scores, matches.argmax(axis=2), axis=1), np.inf)
    tied = np.abs(score - want.scores) <= _TIED
    return float(((same | tied) & places).sum() / max(1, places.sum()))


@dataclass(frozen=True)
class _Lists:
    """Items and scores of lists, [lists, k] each: −1 and 0 where a list has ended."""

    items: IntArray
    scores: Float64Array


class _Questions:
    """The questions of a split, encoded once."""

    def __init__(self, engine: Engine, split: Split) -> None:
        self.engine = engine
        asked = split.valid.sample(QUESTIONS)
        histories = Histories(asked.users, asked.history_end, split.sequences, not engine.artifact.repeats)
        jobs_of, known = EngineJobs(engine, _GREEDY), engine.artifact.vocabulary
        self._batches: list[list[DecodeJob]] = []
        for rows in batches_of([len(histories.items(i)) for i in range(len(histories))]):
            jobs = [jobs_of.of(histories.events(i, known), histories.excluded(i), 1, seed=i) for i in rows]
            states = engine.encode([job.encode for job in jobs])
            self._batches.append(
                [DecodeJob(h=result_of(state).h, request=job.request) for job, state in zip(jobs, states, strict=True)]
            )

    def lists(self, decoding: Decoding, k: int, said: Filters, width: int, size: Size) -> _Lists:
        """Decodes lists that are planned for this width in runs of this size."""
        of_graph = {Size(width, joined_width(k, width, sampled=decoding.sampled)): size}
        self.engine.set_run_sizes(RunSizes({}, of_graph) if decoding.sampled else RunSizes(of_graph))
        changes: dict[str, Any] = {
            "decoding": decoding,
            "k": k,
            "width": width,
            "filter_id": self.engine.filter_id(said),
        }
        items, scores = [], []
        for batch in self._batches:
            jobs = [replace(job, request=replace(job.request, **changes)) for job in batch]
            for decoded in map(result_of, self.engine.decode(jobs)):
                short = (0, k - len(decoded.items))
                items.append(np.pad(decoded.items, short, constant_values=-1))
                scores.append(np.pad(decoded.scores.astype(np.float64), short))
        return _Lists(np.array(items), np.array(scores))


def _find(asked: _Questions, decoding: Decoding, k: int, filters: Sequence[Filters]) -> Found:
    """Finds the size of the runs that make such lists."""
    planned = _planned(decoding, k)
    goal = _WIDEST if decoding.strategy == "beam" else planned
    want = [asked.lists(decoding, k, said, goal.width, goal) for said in filters]

    def equal(size: Size) -> float:
        """The lowest share under any filter, or the first that is too low."""
        lowest = 1.0
        for said, wanted in zip(filters, want, strict=True):
            lowest = min(lowest, equal_places(wanted, asked.lists(decoding, k, said, planned.width, size)))
            if lowest < EQUAL:
                break
        return lowest

    planned_equal = 1.0 if goal == planned else equal(planned)
    tried: list[Tried] = []
    size = planned
    longest = planned.width if decoding.sampled else planned.joined
    for cheaper in _cheaper(planned, math.ceil(longest / asked.engine.artifact.trie.branching[-1])):
        tried.append(Tried(*cheaper, round(equal(cheaper), 5)))
        if tried[-1].equal >= EQUAL:
            size = cheaper
            break
    return Found(decoding.strategy, k, decoding.sampled, planned, goal, round(planned_equal, 5), tuple(tried), size)


def _planned(decoding: Decoding, k: int) -> Size:
    width = decoding.width(k)
    return Size(width, joined_width(k, width, sampled=decoding.sampled))


def _cheaper(planned: Size, narrowest: int) -> list[Size]:
    """Returns sizes of fewer nodes and candidates in all, the fewest first: each of them costs about as much.

    Args:
        planned: The size that they may take the place of.
        narrowest: The fewest nodes that may be kept: those whose children can hold the longest list.
    """
    sizes = [
        Size(width, planned.joined + more)
        for width in _WIDTHS
        for more in (0, planned.width // 4, planned.width // 2)
        if narrowest <= width < planned.width
    ]
    return sorted((size for size in sizes if sum(size) < sum(planned)), key=lambda size: (sum(size), size.width))
