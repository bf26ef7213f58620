"""Asks a served model for lists with the same history and another user group, and says how they differ.

    python -m loadtests.loop.fairness --artifact DIR --data DIR --feature gender [--url URL] [--users 500] [--json FILE]

Each history is asked for once with each value of the feature, and with nothing else about the user: what differs is
what the value alone does. Lists are deterministic (beam). Without a URL the command starts the service itself.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from loadtests.harness.served_process import serve
from model.data.dataset import Dataset, sequences
from model.data.times import iso_utc
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EVENT_TYPES
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside
from service.watch.item_groups import BANDS, UNKNOWN_ITEM, ItemGroups

_K = 10
_VALUES_MAX = 12
_Z = 1.959963984540054  # 97.5 % of the normal distribution
_TIMEOUT_S = 30.0

History = Sequence[Mapping[str, Any]]
# Asks for the items of a list: from a history and the features of the user.
Ask = Callable[[History, Mapping[str, str]], list[str]]


@dataclass(frozen=True)
class Difference:
    """How the lists of two values differ, over the same histories.

    Attributes:
        values: The two values.
        overlap: Mean share of items that the two lists have in common.
        same: Share of histories whose lists hold the same items in the same order.
        exposure: Group → (share with the first value, with the second, difference, half of its 95 % interval).
    """

    values: tuple[str, str]
    overlap: float
    same: float
    exposure: Mapping[str, Mapping[str, tuple[float, float, float, float]]]

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as the report has them."""
        names = ("first", "second", "difference", "half_width")
        exposure = {
            kind: {group: dict(zip(names, figures, strict=True)) for group, figures in groups.items()}
            for kind, groups in self.exposure.items()
        }
        return {"values": list(self.values), "overlap": self.overlap, "same": self.same, "exposure": exposure}


def counterfactual(
    ask: Ask,
    histories: Sequence[History],
    feature: str,
    values: Sequence[str],
    index: Mapping[str, int],
    groups: ItemGroups,
) -> list[Difference]:
    """Compares the lists of every two values of a feature, history by history.

    Args:
        ask: Asks the model.
        histories: Events of each history, as a request has them.
        feature: Name of the feature.
        values: Its values.
        index: Index of each item by its id.
        groups: The groups of the items.

    Returns:
        A difference for each pair of values. Intervals are those of paired differences over histories; there is none
        (NaN) for fewer than two.
    """
    lists = {value: [ask(history, {feature: value}) for history in histories] for value in values}
    return [_difference((a, b), lists[a], lists[b], index, groups) for a, b in itertools.combinations(values, 2)]


def _difference(
    values: tuple[str, str],
    first: Sequence[list[str]],
    second: Sequence[list[str]],
    index: Mapping[str, int],
    groups: ItemGroups,
) -> Difference:
    common = [len(set(a) & set(b)) / max(1, len(a), len(b)) for a, b in zip(first, second, strict=True)]
    same = [a == b for a, b in zip(first, second, strict=True)]
    kinds: Mapping[str, tuple[tuple[str, ...], Callable[[IntArray], IntArray]]] = {
        "popularity": (BANDS, groups.bands_of),
        "category": (groups.categories, groups.categories_of),
    }
    exposure = {}
    for kind, (names, of) in kinds.items():
        a, b = (_shares(lists, index, of, len(names)) for lists in (first, second))
        exposure[kind] = {
            name: _compared(a[:, place], b[:, place])
            for place, name in enumerate(names)
            if a[:, place].any() or b[:, place].any()
        }
    return Difference(values, float(np.mean(common)), float(np.mean(same)), exposure)


def _shares(
    lists: Sequence[list[str]], index: Mapping[str, int], of: Callable[[IntArray], IntArray], n: int
) -> Float64Array:
    """[lists, groups] the share of each list's items that are of each group."""
    shares = np.zeros((len(lists), n))
    for row, items in enumerate(lists):
        places = of(np.array([index.get(item, UNKNOWN_ITEM) for item in items], np.int64))
        shares[row] = np.bincount(places, minlength=n) / max(1, len(items))
    return shares


def _compared(a: Float64Array, b: Float64Array) -> tuple[float, float, float, float]:
    apart = a - b
    half = _Z * float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    return float(a.mean()), float(b.mean()), float(apart.mean()), half


def http_ask(client: httpx.Client) -> Ask:
    """Returns what asks a running service."""

    def ask(history: History, features: Mapping[str, str]) -> list[str]:
        body = {
            "events": list(history), "features": dict(features), "k": _K,
            "decoding": {"strategy": "beam"}, "budget_ms": 60_000,
        }  # fmt: skip
        answer = client.post("/recommend", json=body)
        answer.raise_for_status()
        found = answer.json()
        if found["rung"] != "full":
            raise typer.BadParameter(f"the model did not answer: {found['reason']}", param_hint="--url")
        return [item["item_id"] for item in found["items"]]

    return ask


def histories_of(data: Dataset, most: int, newest: int) -> list[History]:
    """Returns the newest events of some users of a data set, evenly spaced, as a request has them."""
    log = sequences(data)
    users = np.unique(np.linspace(0, len(log.user_ids) - 1, min(most, len(log.user_ids))).astype(int))
    found: list[History] = []
    for user in users.tolist():
        rows = range(*log.user(user).indices(len(log.item)))[-newest:]
        # Without times, events are a minute apart.
        times = log.time_ms if log.has_time else np.arange(len(log.item)) * 60_000
        found.append(
            [
                {
                    "item_id": log.item_ids[log.item[row]],
                    "type": EVENT_TYPES[log.type[row]],
                    "timestamp": iso_utc(int(times[row])),
                }
                for row in rows
            ]
        )
    return found


@contextmanager
def _service(artifact: Path, url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with serve(artifact, GPT4REC_DEADLINE_MAX_MS="60000", GPT4REC_EXPOSURES="false") as served:
        yield served.url


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set whose histories are asked.")],
    feature: Annotated[str, typer.Option(help="User feature that is changed.")],
    url: Annotated[str | None, typer.Option(help="A running service of this artefact; started if not given.")] = None,
    users: Annotated[int, typer.Option(min=2, help="Number of histories.")] = 500,
    out: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
) -> None:
    """Ask for lists with the same history and another value of a user feature."""
    opened = Artifact.open(artifact)
    known = opened.vocabulary.context.values.get(feature, {})
    values = sorted(known)[:_VALUES_MAX]
    if feature not in opened.vocabulary.context.fields or len(values) < 2:
        fields = ", ".join(opened.vocabulary.context.fields) or "none"
        raise typer.BadParameter(f"the model knows no two values of it; its features: {fields}", param_hint="--feature")
    histories = histories_of(Dataset.load(data), users, opened.receptive_field)
    groups = ItemGroups.of(opened.catalogue, opened.popularity)
    with _service(artifact, url) as address, httpx.Client(base_url=address, timeout=_TIMEOUT_S) as client:
        found = counterfactual(http_ask(client), histories, feature, values, opened.vocabulary.item_index, groups)
    for one in found:
        typer.echo(text(feature, one, len(histories)))
    if len(known) > len(values):
        typer.echo(f"{len(known) - len(values)} more values of {feature} were left out")
    if out is not None:
        report = {"feature": feature, "histories": len(histories), "differences": [one.to_json() for one in found]}
        write_aside(out, json.dumps(report, indent=1).encode())


def text(feature: str, one: Difference, histories: int) -> str:
    """Returns a difference in words: its size, and the groups whose share differs by more than chance."""
    first, second = one.values
    head = (
        f"{feature} {first} and {second}, {histories} histories: {one.overlap:.1%} of the items in common, "
        f"{one.same:.1%} of the lists the same"
    )
    rows = [
        f"  {kind} {name}: {a:.1%} and {b:.1%} of the list ({difference:+.1%} ± {half:.1%})"
        for kind, groups in one.exposure.items()
        for name, (a, b, difference, half) in groups.items()
        if abs(difference) > half
    ]
    return "\n".join([head, *(rows or ["  no group of items is shown more to one than to the other"])])


if __name__ == "__main__":
    run_command(main)
