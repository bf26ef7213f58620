"""What the ranker learned on each data set: weights, what each signal is worth, and how many candidates answer. Pure.

Figures in, Markdown out, for `docs/quality.md` and the model card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from loadtests.draw.tables import NOT_YET, markdown
from loadtests.quality.protocols import ordered, reading

Results = Mapping[str, Any]
Seeds = Sequence[Mapping[str, Any]]

NETWORK, ALONE = "with_network", "without_network"


def weights(_: Sequence[Results], files: Mapping[str, Results | None]) -> str:
    """Draws the weight of each signal, the mean over the seeds; one row with the network and one without it."""
    rows: list[list[Any]] = []
    parts = _learned_parts(files)
    names = _names(one for _, seeds in parts for seed in seeds for one in (_everybody(seed), seed[ALONE]))
    for label, seeds in parts:
        asked: tuple[tuple[str, Callable[[Results], Mapping[str, float]]], ...] = (
            ("served", _everybody),
            ("below the model", lambda seed: seed[ALONE]),
        )
        for ranked, of in asked:
            means = [mean(of(seed).get(name, 0.0) for seed in seeds) for name in names]
            rows.append([*_named(label), ranked, *(f"{one:.2f}" if one else "–" for one in means)])
    return markdown(["data", "split", "lists", *names], rows) if rows else NOT_YET


def ablation(_: Sequence[Results], files: Mapping[str, Results | None]) -> str:
    """Draws what is lost when a signal is left out, on held-out questions of validation; means over the seeds."""
    rows: list[list[Any]] = []
    for label, seeds in _learned_parts(files):
        found = [seed["learned"][NETWORK] for seed in seeds if "ablation" in seed["learned"][NETWORK]]
        for name in _names(one["ablation"] for one in found):
            without = [one["ablation"][name] for one in found if name in one["ablation"]]
            every = [one["held_out"]["every_signal"] for one in found if name in one["ablation"]]
            lost = [
                mean(a[measure] - b[measure] for a, b in zip(every, without, strict=True))
                for measure in ("ndcg@10", "recall@10")
            ]
            loss, error = (mean(one[figure] for one in without) for figure in ("loss", "standard_error"))
            dropped = sum(name in one["dropped"] for one in found)
            rows.append(
                [*_named(label), name, f"{loss:+.4f} ± {error:.4f}", *(f"{-one:+.4f}" for one in lost),
                 f"{dropped} of {len(found)}"]
            )  # fmt: skip
    columns = ["data", "split", "without", "nats lost", "NDCG@10", "recall@10", "dropped by the rule"]
    return markdown(columns, rows) if rows else NOT_YET


def candidates(_: Sequence[Results], files: Mapping[str, Results | None]) -> str:
    """Draws the share of validation targets among the candidates: of each signal, of the network, of all."""
    parts = _learned_parts(files)
    names = _names(seed["learned"]["candidate_recall"] for _, seeds in parts for seed in seeds)
    rows = [
        [*_named(label), *(_mean_of(seed["learned"]["candidate_recall"].get(name) for seed in seeds) for name in names)]
        for label, seeds in parts
    ]
    return markdown(["data", "split", *(name.replace("_", " ") for name in names)], rows) if rows else NOT_YET


def _learned_parts(files: Mapping[str, Results | None]) -> list[tuple[str, Seeds]]:
    """Parts with what their exports learned, by seed."""
    found = files.get("quality_ranking")
    parts = {} if found is None else found["parts"]
    learned = {
        label: [seed["ranker"] for seed in part.get("seeds", {}).values() if "ranker" in seed]
        for label, part in parts.items()
    }
    return [(label, learned[label]) for label in ordered([label for label, seeds in learned.items() if seeds])]


def _everybody(seed: Results) -> Mapping[str, float]:
    """The weights of users that have none of their own."""
    weights_of: Mapping[str, float] = seed["groups"][0]["weights"]
    return weights_of


def _names(found: Any) -> list[str]:
    return list(dict.fromkeys(name for one in found for name in one))


def _named(label: str) -> list[str]:
    return [reading(label).name, reading(label).split]


def _mean_of(values: Any) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.3f}" if known else "–"


SUMMARY: Mapping[str, Callable[[Sequence[Results], Mapping[str, Results | None]], str]] = {
    "ranker_weights": weights,
    "ranker_ablation": ablation,
    "ranker_candidates": candidates,
}
