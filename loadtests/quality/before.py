"""What a commit gains on an older one, user by user, over the seeds that both have.

    python -m loadtests.quality.before --work DIR --before DIR

`--work` is the folder of `loadtests.quality.ranking`, `--before` a folder of runs of the older commit with the ranks
that `python -m loadtests.quality.ranks` wrote beside them. Two files are paired where data set (by fingerprint), split
and seed agree. The value of a user is the mean over the seeds; intervals come from the paired bootstrap. A part does
not lose where a loss of 1 % or more is ruled out: one-sided tests, Holm's correction over all parts and measures of a
split, and the upper end of the loss at the level at which Holm's procedure tests it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.quality import criteria
from loadtests.quality.protocols import reading
from loadtests.quality.ranks import FILE, SERVED, Ranks, RanksError
from model.evaluation import metrics
from model.evaluation.bootstrap import paired_bootstrap
from service.artifact.array_types import Float64Array, IntArray
from service.cli.outermost import run_command

NAME = "quality_before"
COMMAND = "python -m loadtests.quality.before --work DIR --before DIR"
MEASURES: Mapping[str, Callable[[IntArray, int], Float64Array]] = {"recall@10": metrics.recall, "ndcg@10": metrics.ndcg}
LEVEL = 0.05
PART = "part.txt"  # in the folder of a part's seeds: its name

console = Console(stderr=True)

Pair = tuple[Ranks, Ranks]  # ours and that of the older commit


def pairs(work: Path, before: Path) -> dict[str, list[Pair]]:
    """Pairs the trainings of each part of the ranking with those of the older commit.

    Raises:
        RanksError: The older commit has two files for one training, asked other users, or shares none.
    """
    older: dict[tuple[str, str, int], Path] = {}
    loaded: dict[Path, Ranks] = {}
    for file in sorted(before.rglob(FILE)):
        loaded[file] = Ranks.load(file)
        key = loaded[file].key
        if key in older:
            raise RanksError(
                f"{older[key]} and {file} are both of {loaded[file].data}, split {key[1]}, seed {key[2]}: "
                "name a folder with one of them"
            )
        older[key] = file
    found: dict[str, list[Pair]] = {}
    for name in sorted(work.rglob(PART)):
        label = name.read_text("utf-8")
        for file in sorted(name.parent.glob(f"*/{FILE}")):
            ours = Ranks.load(file)
            if ours.key in older:
                found.setdefault(label, []).append((ours, _same_users(ours, loaded[older[ours.key]], file)))
    if not found:
        raise RanksError(f"{work} and {before} share no training (data set, split and seed): write the ranks of both")
    return found


def _same_users(ours: Ranks, theirs: Ranks, file: Path) -> Ranks:
    """Returns `theirs` in the order of our users."""
    row = {user: n for n, user in enumerate(theirs.users)}
    if set(row) != set(ours.users):
        raise RanksError(f"{file}: the older commit asked other users; train both on the same data and split")
    order = np.array([row[user] for user in ours.users], np.int64)
    ranks = {name: ranks[order] for name, ranks in theirs.ranks.items()}
    return Ranks(theirs.data, theirs.fingerprint, theirs.split, theirs.seed, ours.users, ranks)


def compare(work: Path, before: Path) -> list[dict[str, Any]]:
    """Returns a row for each part and measure: both values, the difference and its interval, and the loss ruled out."""
    rows = []
    for label, of_seeds in pairs(work, before).items():
        for measure, value in MEASURES.items():
            ours, theirs = (np.stack([value(pair[side].of(SERVED), 10) for pair in of_seeds]) for side in (0, 1))
            least = float((ours - theirs).mean(axis=1).min())
            mean = ours.mean(axis=0), theirs.mean(axis=0)
            rows.append(
                {
                    "part": label,
                    "measure": measure,
                    "seeds": [pair[0].seed for pair in of_seeds],
                    "now": float(mean[0].mean()),
                    "before": float(mean[1].mean()),
                    "least_of_seeds": least,
                    **asdict(paired_bootstrap(*mean)),
                    "values": mean,
                }
            )
    split = {row["part"]: reading(row["part"]).place for row in rows}
    for place in sorted(set(split.values())):
        bound_losses([row for row in rows if split[row["part"]] == place])
    return [{key: value for key, value in row.items() if key != "values"} for row in rows]


def bound_losses(rows: Sequence[dict[str, Any]], margin: float = criteria.LARGEST_LOSS) -> None:
    """Adds to each row of one family `lost_high`, the upper end of the loss as a share of the value before.

    Holm's procedure (1979) tests the k-th smallest of m one-sided p-values at LEVEL / (m − k + 1) and stops at the
    first that is larger; the upper end of a row is the one of the level at which it was tested, or at which the
    procedure stopped.
    `lost_high` is below `margin` exactly where the loss is ruled out.
    """
    chances = [_chance_of_a_loss(row["values"][0], row["values"][1], margin) for row in rows]
    stopped = 0.0
    for place, number in enumerate(sorted(range(len(rows)), key=chances.__getitem__)):
        level = stopped or LEVEL / (len(rows) - place)
        if not stopped and chances[number] > level:
            stopped = level
        ours, theirs = rows[number]["values"]
        low = paired_bootstrap(ours, theirs, confidence=1 - 2 * level).low
        rows[number] |= {"level": level, "lost_high": -low / float(theirs.mean()) if theirs.any() else 0.0}


def _chance_of_a_loss(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], margin: float) -> float:
    """Returns the one-sided p-value of the hypothesis that the loss is the margin or more."""
    test = paired_bootstrap(ours + margin * float(theirs.mean()), theirs)
    return test.p_value / 2 if test.difference > 0 else 1 - test.p_value / 2


def record(rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
    """Records the table, and the rows of the criteria."""
    kept = {(row["part"], row["measure"]): row for row in (results.load(NAME) or {}).get("rows", [])}
    kept |= {(row["part"], row["measure"]): row for row in rows}
    results.save(NAME, {"rows": list(kept.values())}, command=COMMAND)
    for row in rows:
        figures = {
            criteria.ON_BEFORE: row["low"],
            criteria.ON_BEFORE_LEAST: row["least_of_seeds"],
            criteria.LOST: row["lost_high"],
        }
        for what, value in figures.items():
            name = f"{row['part']}: {row['measure']} {what}"
            results.record(results.QUALITY, results.row(name, value, "", COMMAND, **criteria.limit(name)))
        say(
            f"{row['part']}, {row['measure']}: {row['before']:.4f} → {row['now']:.4f} "
            f"({row['low']:+.4f} … {row['high']:+.4f}), loss at most {row['lost_high']:.2%}"
        )


def main(
    work: Annotated[Path, typer.Option(exists=True, help="Folder of `loadtests.quality.ranking`.")],
    before: Annotated[Path, typer.Option(exists=True, help="Folder of ranks that an older commit wrote.")],
) -> None:
    """Compares every part that both have, and records the rows."""
    record(compare(work, before), lambda line: console.print(line, highlight=False))


if __name__ == "__main__":
    run_command(main)
