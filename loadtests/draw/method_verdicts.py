"""One line for every method beside the defaults in `docs/quality.md`: where it was measured, and what that says. Pure.

A method without a figure has a line too: it is not measured, and the line says why where there is a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.draw.intervals import SIGNIFICANT, difference
from loadtests.draw.tables import markdown
from loadtests.quality.means import with_holm
from loadtests.quality.method_criteria import DEFAULTS, METHODS, WINDOW

Results = Mapping[str, Any]
Line = tuple[str, str, str, str]  # data, compared with, figure, verdict

COLUMNS = ("about", "method", "measured on", "compared with", "NDCG@10 ahead, or the criterion", "verdict")
NOT_MEASURED = "not measured"
ABOUT_METHODS = "training"


@dataclass(frozen=True)
class Entry:
    """A method.

    Attributes:
        about: What it belongs to.
        name: Its name.
        method: Its name in the tables of `loadtests.quality.methods`.
        condition: Its label in the tables of `loadtests.quality.conditions`.
        behaviour: Its name among the variants of `loadtests.quality.behaviours`.
        criteria: Ends of the names of its criteria in `results/memory.json`.
        why: Why it has no figure.
    """

    about: str
    name: str
    method: str = ""
    condition: str = ""
    behaviour: str = ""
    criteria: tuple[str, ...] = ()
    why: str = ""


def _behaviour(name: str, variant: str) -> Entry:
    return Entry("behaviours", name, behaviour=variant)


def _condition(name: str, label: str) -> Entry:
    return Entry("who asks, and for what", name, condition=label)


def _code(slot: str, name: str) -> Entry:
    ends = (
        "recall@10 gained with the target's code, lower end",
        "share of the list that has the code, gained, lower end",
        "recall@10, groups of history length further apart",
        "share of tail items, lost",
    )
    return Entry("who asks, and for what", name, criteria=tuple(f"{slot}: {end}" for end in ends))


ENTRIES: tuple[Entry, ...] = (
    _behaviour("a stream for each behaviour", "streams"),
    _behaviour("a stream for each behaviour, and losses by behaviour", "streams, losses"),
    _behaviour("queries as n-grams in the mixed stream", "mixed, queries"),
    _behaviour("queries as n-grams in a stream of their own", "streams, queries"),
    _behaviour("vectors of frequent queries", "streams, sentences"),
    _behaviour("streams, queries and losses together", "all"),
    _condition("user features in the conditional norm", "user features in the conditional norm"),
    _condition("user features as a prefix token", "user features as a prefix token"),
    _condition("user features in every layer", "user features in every layer"),
    _condition("user features in a layer (MLP), not as a sum", "user features in a layer (MLP), not as a sum"),
    _condition("part of the day as the scene", "part of the day as the scene"),
    _condition("soft prompts of a scene", "soft prompts for the scene, beside its embedding"),
    _condition("soft prompts of a segment", "soft prompts for a user feature, beside its embedding"),
    _condition("category asked for", "category asked for"),
    _condition("price band asked for", "price band asked for"),
    _code("category", "control code: category, its effect on lists and fairness"),
    _code("price_band", "control code: price band, its effect on lists and fairness"),
    _code("style", "control code: style, its effect on lists and fairness"),
    # Positions, decays and patterns in one window are judged at three horizons (`loadtests.quality.horizons`).
    *(
        Entry(ABOUT_METHODS, name, method=name)
        for name, method in METHODS.items()
        if name not in (DEFAULTS, WINDOW) and method.against != WINDOW
    ),
    Entry("text and vectors", "a start from the weights of a GPT-2", why="no such weights are at hand"),
    Entry("text and vectors", "prompted head, another catalogue",
          criteria=tuple(f"ndcg@10 above {other}, lower end, seed 0" for other in ("popularity", "text similarity"))),
    Entry("text and vectors", "prompted head, ratings",
          criteria=tuple(f"squared error of ratings better than {other}, lower end, seed 0"
                         for other in ("the mean", "user and item"))),
    Entry("text and vectors", "prompted head, reasons",
          criteria=tuple(f"reasons named first better than {other}, lower end, seed 0"
                         for other in ("the newest item", "text"))),
    Entry("text and vectors", "vectors of items from a file", why="no data set here has vectors of its own"),
)  # fmt: skip


def verdicts(files: Mapping[str, Results | None], rows: Sequence[Results]) -> str:
    """Draws the lines of all methods.

    Args:
        files: `quality_methods` and `quality_conditions`, each None where nothing was measured.
        rows: Those of `results/memory.json`.
    """
    lines: list[Sequence[Any]] = []
    for entry in ENTRIES:
        found = [
            *_trained(entry, files),
            *_conditions(entry, files),
            *_behaviours(entry, rows),
            *_criteria(entry, rows),
        ]
        lacking = f"{NOT_MEASURED}: {entry.why}" if entry.why else NOT_MEASURED
        lines += [[entry.about, entry.name, *line] for line in found or [("–", "–", "–", lacking)]]
    return markdown(list(COLUMNS), lines)


def said(one: Results) -> str:
    """Returns the verdict of a paired difference whose p-value is corrected."""
    if one["p_holm"] > SIGNIFICANT:
        return "no difference found"
    return "helps" if one["difference"] > 0 else "hurts"


def _trained(entry: Entry, files: Mapping[str, Results | None]) -> Iterator[Line]:
    for key, part in (files.get("quality_methods") or {"parts": {}})["parts"].items():
        for line in part["table"]:
            if entry.method and line["method"] == entry.method:
                seeds = f"{key}, {line['seeds']} seed{'s' if line['seeds'] > 1 else ''}"
                yield seeds, line["against"], difference(line["ahead"]["ndcg@10"]), line["verdict"]


def _conditions(entry: Entry, files: Mapping[str, Results | None]) -> Iterator[Line]:
    for name, rows in (files.get("quality_conditions") or {"ablations": {}})["ablations"].items():
        corrected = with_holm([row["ndcg@10"] for row in rows])
        for row, one in zip(rows, corrected, strict=True):
            if entry.condition and row["label"] == entry.condition:
                other = ", ".join(row["theirs"])
                yield f"{name}, {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}", other, difference(one), said(one)


def _behaviours(entry: Entry, rows: Sequence[Results]) -> Iterator[Line]:
    if not entry.behaviour:
        return
    values = {row["criterion"]: row for row in rows if row["criterion"].startswith("behaviours, ")}
    for criterion, row in values.items():
        where, _, what = criterion.removeprefix("behaviours, ").rpartition(": ")
        if what == f"{entry.behaviour} − mixed, lower end":
            low, high = row["value"], values[criterion.replace("lower end", "upper end")]["value"]
            verdict = "helps" if low > 0 else "hurts" if high < 0 else "no difference found"
            yield where, "mixed", f"{low:+.4f} … {high:+.4f}", verdict
        elif what in (f"{entry.behaviour}, {asked} a search" for asked in ("after", "without")):
            yield where, "its truth", f"{what.rpartition(', ')[2]}: {row['value']:g}, {row['limit']}", _held(row)


def _criteria(entry: Entry, rows: Sequence[Results]) -> Iterator[Line]:
    for end in entry.criteria:
        for row in rows:
            if row["criterion"].endswith(end):
                where = row["criterion"].removesuffix(end).rstrip(":, ")
                for about in ("zero-shot, ", "prompted head, "):
                    where = where.removeprefix(about)
                yield where, "–", f"{end}: {row['value']:g}, {row['limit']}", _held(row)


def _held(row: Results) -> str:
    return "holds" if row["holds"] else "missed"
