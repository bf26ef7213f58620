"""Tables of cold items in `docs/quality.md`. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.draw.intervals import difference, mean_of_seeds
from loadtests.draw.tables import by_command, markdown
from loadtests.quality.cold_parts import PARTS

Results = Mapping[str, Any]

NAMES = {"id": "ids alone", "codes": "texts in the semantic ids", "content": "texts in ids and embeddings",
         "like": "ids, new ones by like texts", "nearest": "nearest texts, no model"}  # fmt: skip
HEADINGS = {"recall@10": "recall@10", "recall@20": "recall@20", "ndcg@10": "NDCG@10"}


def cold(found: Results) -> str:
    """Draws, for each data set, what was held out, the means, and the gain of texts."""
    parts = []
    for data, part in found["parts"].items():
        asked = part["questions"]
        parts += [
            f"{data}: {part['share']:.0%} of the items held out, {asked['cold']:,} questions for one of them and "
            f"{asked['warm']:,} for another; {part['seeds']} seeds of {part['minutes']:g} minutes on one core.",
            _means(part),
            "Differences between two rows, question by question, each value the mean over the seeds. Questions for the "
            f"same item are resampled together (the cold ones ask for {part['items']['cold']:,} items):",
            _gained(part),
        ]
    return "\n\n".join([*parts, by_command(found)])


def folds(found: Results) -> str:
    """Draws, for each data set, the means over all folds, a row for each fold, and the paired differences."""
    parts = []
    for data, part in found["parts"].items():
        asked = part["questions"]
        parts += [
            f"{data}: every item held out once, {asked['cold']:,} questions for a held-out item and {asked['warm']:,} "
            f"for another, over {len(part['folds'])} folds; {len(part['seeds'])} seeds.",
            markdown(
                ["items are", "asked for", *HEADINGS.values()],
                [
                    [NAMES[name], PARTS[kind], *(f"{kinds[kind][measure]:.4f}" for measure in HEADINGS)]
                    for name, kinds in part["means"].items()
                    for kind in kinds
                ],
            ),
            "recall@10 of cold items in each fold:",
            _each_fold(part),
            "Differences over all folds, question by question, each value the mean over the seeds. Cold questions for "
            "one item, and warm questions of one user, are resampled together:",
            _gained(part),
            f"`{part['command']}`",
        ]
    return "\n\n".join(parts)


def _each_fold(part: Results) -> str:
    names = list(part["means"])
    rows = [
        [number, one["questions"]["cold"], *(f"{one['recall@10'][name]['cold']:.4f}" for name in names)]
        for number, one in enumerate(part["folds"], 1)
    ]
    return markdown(["fold", "questions", *(NAMES[name] for name in names)], rows)


def _means(part: Results) -> str:
    rows = [
        [NAMES[name], heading, *(mean_of_seeds(of_kind[kind][measure]) for measure in HEADINGS)]
        for name, of_kind in part["means"].items()
        for kind, heading in PARTS.items()
        if kind in of_kind
    ]
    return markdown(["items are", "asked for", *HEADINGS.values()], rows)


def _gained(part: Results) -> str:
    by_row: dict[tuple[str, str, str], dict[str, Results]] = {}
    for row in part["gained"]:
        by_row.setdefault((row["name"], row["against"], row["part"]), {})[row["measure"]] = row
    rows = [
        [NAMES[name], NAMES[against], PARTS[kind], *(difference(measures[m]) for m in HEADINGS)]
        for (name, against, kind), measures in by_row.items()
    ]
    return markdown(["items are", "less", "asked for", *HEADINGS.values()], rows)
