"""The drawn lists of a log, with what they were drawn from and what they earned: what off-policy estimates read.

The unit is a list at its first showing, whether it was drawn or not. A list stays the same until something happens, so
one that earns nothing is shown again more often than one that is clicked: a mean over showings is not that over lists.
What a list earns at a later showing counts nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from model.online.attribution import Attributed
from model.online.marginals import Law, conditionals
from model.online.outcomes import Reward, by_list, by_position, genuine
from model.online.partitions import LogRange, attributed
from model.online.rebuilt_histories import Histories, RebuiltHistory
from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.engine.decoding import Decoding

# Why a drawn list cannot be used.
NO_LAW, NO_CANDIDATES, REORDERED, SHARED_SEED, OTHER_LAW = (
    "no_law", "no_candidates", "reordered", "shared_seed", "other_law",
)  # fmt: skip
# Why a list, drawn or not, need not be: it is an earlier list, shown again.
SHOWN_AGAIN = "shown_again"
_HOUR_MS = 3_600_000
_COLUMNS = (
    "scores", "log_propensities", "drawn", "set_log_propensity", "strategy", "parameters", "segment", "model_version",
    "filter", "excluded", "seed", "history_version", "scene", "k", "candidates", "candidate_scores",
    "first_rank", "asked",
)  # fmt: skip
# The graph computes propensities in float32.
_TOLERANCE = 0.01
_HASH_PARTS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class LoggedList:
    """A drawn list.

    Attributes:
        list_id: Its id.
        owner: Number of the subject that it belongs to.
        segment: Segment of the user.
        decoding: How it was decoded.
        model_version: The model.
        scores: [n] fused scores of the candidates.
        candidates: [n] their catalogue indices.
        shown: [d] the drawn positions, as places among the candidates.
        items: Item ids of all positions.
        reward: [len(items)] what each position earned.
        request: What else another model needs to decode it again: `time_ms`, `k`, `filter`, `scene`, `excluded`.
        history: The history that it was made from, as far as the log has it; None where it was not asked for.
    """

    list_id: str
    owner: int
    segment: str
    decoding: Decoding
    model_version: str
    scores: FloatArray
    candidates: IntArray
    shown: IntArray
    items: tuple[str, ...]
    reward: Float64Array
    request: Mapping[str, Any]
    history: RebuiltHistory | None = None


@dataclass(slots=True)
class Sample:
    """The lists of a sample of the subjects.

    Attributes:
        lists: Drawn lists that can be used.
        made_by_model: Every list that a model made, once: `segment`, `owner` (number), `decoding`, `earned`.
        subjects: Number of subjects.
        share: Share of the subjects that is in the sample.
        left_out: Lists that are left out, by segment and reason: drawn ones that cannot be used, and showings after the
            first of any list.
    """

    lists: list[LoggedList] = field(default_factory=list)
    made_by_model: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(
            schema={"segment": pl.String, "owner": pl.Int64, "decoding": pl.String, "earned": pl.Float64}
        )
    )
    subjects: int = 0
    share: float = 1.0
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)


def law_of(decoding: Decoding) -> Law:
    """Returns the law of the lists of a decoding."""
    return Law(decoding.temperature, decoding.nucleus, decoding.sampled)


def name_of(decoding: Decoding) -> str:
    """Returns a name that is the same for decodings that draw alike."""
    if decoding.sampled:
        return f"temperature {decoding.temperature:g}, top-p {min(decoding.nucleus, 1.0):g}"
    return f"beam {decoding.beam_width}" if decoding.strategy == "beam" else decoding.strategy


def read_sample(span: LogRange, reward: Reward, *, lists_max: int, made: bool = False) -> Sample:
    """Reads the drawn lists of a log, of as many subjects as fit.

    Args:
        span: What is read.
        reward: What lists earn.
        lists_max: The most drawn lists. A log with more is read for a part of its subjects, chosen by a hash.
        made: Whether traffic that looks made is in as well.

    Raises:
        LogError: The log cannot be read.
    """
    sample = Sample(share=min(1.0, lists_max / max(1, _drawn(span))))
    numbers: dict[str, int] = {}
    tables: list[pl.DataFrame] = []
    drawn: list[_Drawn] = []
    rows = 0
    for part in attributed(span, _COLUMNS):
        histories = Histories(part.outcomes) if span.histories else None
        kept = _of_model(genuine(part, made=made), sample.share)
        positions = by_position(kept.outcomes)
        earned = _earned(by_list(kept.lists, positions), positions, reward)
        for place, row in enumerate(earned.iter_rows(named=True), start=rows):
            number = numbers.setdefault(row["owner"], len(numbers))
            # A list for nobody was made from the events of its request, which are not logged.
            known = histories if row["subject"] else None
            history = None if known is None else known.before(row["subject"], row["time_ms"])
            found = _logged(row, number, history)
            if found is not None:
                drawn.append(_Drawn(found, place, row["segment"], row["seed"], number if row["subject"] else _NOBODY))
        tables.append(_summary(earned, numbers, reward))
        rows += len(earned)
    sample.subjects = len(numbers)
    if tables:
        first = _first_showings(pl.concat(tables), sample.left_out)
        sample.made_by_model = first.select(sample.made_by_model.columns)
        shown = set(first["row"])
        sample.lists = _independent([one for one in drawn if one.row in shown], sample.left_out)
    return sample


# In place of the number of an owner, for a list that was made for no user or session.
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A drawn list or why it cannot be used, its row among all lists, its segment and seed, and whose it is."""

    found: LoggedList | str
    row: int
    segment: str
    seed: str | None
    owner: int


def _unit() -> pl.Expr:
    """What showings of one list have in common, as a hash.

    Lists of one owner and seed are one draw, of the items or of whether the list explores. Where nothing was drawn
    there is no seed: then it is what a seed follows from by default (`service/recommend/list_seed.py`), because drawn
    and other lists must be counted alike. A list for nobody without a seed is one by itself.
    """
    owner = pl.when(pl.col("subject") == "").then(pl.lit("")).otherwise("owner")
    hour = (pl.col("time_ms") // _HOUR_MS).cast(pl.String)
    stable = (pl.col("subject") != "") & (pl.col("drawn").fill_null(0) == 0)
    return pl.coalesce(
        pl.concat_str(pl.lit("seed"), owner, "seed", separator="\x00"),
        pl.when(stable).then(pl.concat_str(pl.lit("question"), owner, "history_version", hour, separator="\x00")),
        pl.concat_str(pl.lit("list"), "list_id", separator="\x00"),
    ).hash(seed=3)


def _first_showings(lists: pl.DataFrame, left_out: Counter[tuple[str, str]]) -> pl.DataFrame:
    """The first row of each unit, with `row`: its number among all; the other showings are counted as left out."""
    every = lists.with_row_index("row").sort("time_ms", maintain_order=True)
    first = every.unique("unit", keep="first", maintain_order=True)
    for segment, count in every.join(first, on="row", how="anti").group_by("segment").len().iter_rows():
        left_out[segment, SHOWN_AGAIN] += count
    return first.sort("row")


def _independent(drawn: Sequence[_Drawn], left_out: Counter[tuple[str, str]]) -> list[LoggedList]:
    """The lists that can be used and were drawn independently, by time; the others are counted as left out.

    A seed that a caller gave to several users says nothing of any of them.
    """
    owners: dict[str, set[int]] = {}
    for one in drawn:
        if one.seed is not None:
            owners.setdefault(one.seed, set()).add(one.owner)
    kept = list[LoggedList]()
    for one in drawn:
        if isinstance(one.found, str):
            left_out[one.segment, one.found] += 1
        elif one.seed is not None and len(owners[one.seed]) > 1:
            left_out[one.segment, SHARED_SEED] += 1
        else:
            kept.append(one.found)
    return sorted(kept, key=lambda one: one.request["time_ms"])


def _drawn(span: LogRange) -> int:
    read = span.log.read("exposures", ["drawn"], from_ms=span.from_ms, until_ms=span.until_ms)
    return sum(int((rows["drawn"] > 0).sum()) for rows in read)


def _of_model(part: Attributed, share: float) -> Attributed:
    # A later page, and a ranking of named items, are no list that other policies would have shown in its place.
    whole = (pl.col("first_rank").fill_null(1) == 1) & pl.col("asked").is_null()
    lists = part.lists.filter(pl.col("strategy").is_not_null() & whole)
    if share < 1.0:
        lists = lists.filter(pl.col("owner").hash(seed=7) % _HASH_PARTS < int(share * _HASH_PARTS))
    return Attributed(lists.with_columns(pl.col("segment").fill_null("")), part.outcomes, part.counts)


def _earned(lists: pl.DataFrame, positions: pl.DataFrame, reward: Reward) -> pl.DataFrame:
    """Adds `at` and `reward`: the positions that earned something, and what."""
    by = positions.group_by("list_id", maintain_order=True).agg(at=pl.col("position"), reward=pl.col(reward))
    return lists.join(by, on="list_id", how="left", maintain_order="left")


def _summary(lists: pl.DataFrame, numbers: Mapping[str, int], reward: Reward) -> pl.DataFrame:
    """The columns of `Sample.made_by_model`, `time_ms`, and `unit`."""
    kinds = lists.select("strategy", "parameters").unique()
    names = pl.Series([name_of(decoding_of(row)) for row in kinds.iter_rows(named=True)], dtype=pl.String)
    named = lists.join(
        kinds.with_columns(decoding=names),
        on=["strategy", "parameters"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    owner = pl.Series([numbers[one] for one in lists["owner"]], dtype=pl.Int64)
    return named.select("segment", "time_ms", owner=owner, decoding="decoding", earned=pl.col(reward), unit=_unit())


def decoding_of(row: Mapping[str, Any]) -> Decoding:
    """Returns the decoding of an exposure's row."""
    said = row["parameters"] or {}
    given = {name: value for name in ("beam_width", "top_p", "temperature") if (value := said.get(name)) is not None}
    return Decoding(row["strategy"], **given)


def _logged(row: Mapping[str, Any], owner: int, history: RebuiltHistory | None) -> LoggedList | str | None:
    """The list of a row; why it cannot be used; or None if it was not drawn."""
    decoding = decoding_of(row)
    if not decoding.sampled or not row["drawn"]:
        return None
    if row["log_propensities"] is None or None in row["log_propensities"]:
        return NO_LAW
    if row["set_log_propensity"] is not None:
        return REORDERED
    if not row["candidates"]:
        return NO_CANDIDATES
    scores = np.array(row["candidate_scores"], np.float32)
    shown = _places(scores, np.array(row["scores"][: row["drawn"]], np.float32))
    if shown is None:
        return OTHER_LAW
    logged = np.array(row["log_propensities"][: len(shown)], np.float64)
    if not np.allclose(conditionals(scores, law_of(decoding), shown), logged, rtol=0.0, atol=_TOLERANCE):
        return OTHER_LAW
    reward = np.zeros(len(row["items"]))
    for position, earned in zip(row["at"] or (), row["reward"] or (), strict=True):
        reward[position - 1] = earned
    return LoggedList(
        list_id=row["list_id"],
        owner=owner,
        segment=row["segment"],
        decoding=decoding,
        model_version=row["model_version"] or "",
        scores=scores,
        candidates=np.array(row["candidates"], np.int64),
        shown=shown,
        items=tuple(row["items"]),
        reward=reward,
        request={name: row[name] for name in ("time_ms", "k", "filter", "scene", "excluded")},
        history=history,
    )


def _places(scores: FloatArray, shown: FloatArray) -> IntArray | None:
    """The candidates that were shown, found by their scores; candidates of one score are alike in law."""
    free: dict[float, list[int]] = {}
    for place, score in reversed(list(enumerate(scores.tolist()))):
        free.setdefault(score, []).append(place)
    places = []
    for score in shown.tolist():
        if not free.get(score):
            return None
        places.append(free[score].pop())
    return np.array(places, np.int64)


@dataclass(slots=True)
class ItemNumbers:
    """Numbers of items by id; candidates are known by the positions at which they were shown.

    Attributes:
        by_id: Number of each item that was shown.
    """

    by_id: dict[str, int] = field(default_factory=dict)
    _by_index: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def of(cls, lists: Sequence[LoggedList]) -> ItemNumbers:
        """Numbers the items that lists show."""
        numbers = cls()
        for one in lists:
            for item, place in zip(one.items, one.shown.tolist(), strict=False):
                number = numbers.by_id.setdefault(item, len(numbers.by_id))
                numbers._by_index[one.model_version, int(one.candidates[place])] = number
        return numbers

    def of_candidates(self, one: LoggedList) -> IntArray:
        """Returns the numbers [n] of a list's candidates; −1 for those that no list shows."""
        found = (self._by_index.get((one.model_version, index), -1) for index in one.candidates.tolist())
        return np.fromiter(found, np.int64, len(one.candidates))

    def of_ids(self, item_ids: Sequence[str]) -> IntArray:
        """Returns the numbers [n] of items; −1 for those that no list shows."""
        return np.fromiter((self.by_id.get(item, -1) for item in item_ids), np.int64, len(item_ids))
