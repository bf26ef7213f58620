"""List qualities by strategy and segment: diversity, novelty, coverage, long tail and fairness.

    python -m loadtests.quality.lists --runs RUN,RUN,RUN --data DIR --work DIR [--users 3000] [--policies FILE]

Runs are the seeds of one training, each with its artefact below `artifacts`. Every strategy of a grid is asked through
the served graphs; existing lists in `--work` are reused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console

from loadtests.common import results
from loadtests.quality.means import spread, with_holm
from loadtests.quality.strategies import (
    BASELINES,
    OF_LISTS,
    SERVED,
    Asked,
    Data,
    PolicyFile,
    Runs,
    Users,
    Work,
    World,
    ask,
    figures,
    label,
    over_seeds,
)
from model.evaluation import list_qualities
from model.evaluation.bootstrap import paired_bootstrap
from service.artifact.array_types import Float64Array
from service.cli.outermost import run_command
from service.policies import policies
from service.settings.service_settings import DEFAULT_POLICIES

NAME = "quality_lists"
COMMAND = "python -m loadtests.quality.lists --runs RUN,RUN,RUN --data DIR --work DIR"
# What everybody else is compared with: the most probable list, searched well.
REFERENCE = "beam 5"
# Users of a group, at least: below, a recall says nothing.
LEAST_GROUP = 40
OF_ITEMS = "popularity of the item asked for"

Rows = npt.NDArray[np.bool_]

console = Console(stderr=True)


def main(runs: Runs, data: Data, work: Work, users: Users = 3000, policy_file: PolicyFile = DEFAULT_POLICIES) -> None:
    """Asks every strategy and records the qualities of its lists."""
    with console.status("asking") as status:
        folders = [Path(run) for run in runs.split(",")]
        asked = ask(folders, data, work, policies.load(policy_file), users, status.update)
        status.update("measuring")
        found = measured(asked)
    keep(asked.dataset.name, found)


def measured(asked: Asked) -> dict[str, Any]:
    """Measures everything about one data set."""
    world = World.of(asked)
    everybody = np.ones(len(asked.segment), bool)
    shipped = list(dict.fromkeys([*(label(s.decoding.build()) for s in asked.policies.segments), SERVED]))
    return {
        "users": len(asked.segment),
        "items": len(world.asked),
        "seeds": len(asked.lists),
        "reference": REFERENCE,
        "shipped": shipped,
        "strategies": {name: means(asked, name, world, everybody) for name in asked.lists[0]},
        "segments": {
            segment.name: {
                "users": int((asked.segment == segment.name).sum()),
                "strategy": (own := label(segment.decoding.build())),
                "figures": {
                    name: means(asked, name, world, asked.segment == segment.name)
                    for name in dict.fromkeys((own, REFERENCE, "item-CF"))
                },
            }
            for segment in asked.policies.segments
            if (asked.segment == segment.name).sum() > 1
        },
        "compared": compared(asked, world, [name for name in (*shipped, *BASELINES) if name != REFERENCE]),
        "groups": groups(asked, world),
        "apart": apart(asked, world),
    }


def means(asked: Asked, name: str, world: World, rows: Rows) -> dict[str, Any]:
    """Returns measure → mean over the seeds and its interval, for the lists of some questions."""
    inside = world.among(rows)
    seeds = [figures(lists[name][rows], inside) for lists in asked.lists]
    return {
        measure: spread(values)
        for measure in seeds[0]
        if len(values := [value for seed in seeds if (value := seed[measure]) is not None]) == len(seeds)
    }


def compared(asked: Asked, world: World, names: Sequence[str]) -> list[dict[str, Any]]:
    """Compares each of the names with the reference, in every measure of a single list.

    Paired bootstrap over the users, Holm's correction over all rows.
    """
    everybody = np.ones(len(asked.segment), bool)
    values = {name: over_seeds(asked, name, world, everybody) for name in (REFERENCE, *names)}
    rows = []
    for measure in [m for m in OF_LISTS if m in values[REFERENCE]]:
        theirs = values[REFERENCE][measure]
        for name in names:
            ours = values[name][measure]
            both = ~np.isnan(ours) & ~np.isnan(theirs)
            rows.append({"name": name, "measure": measure, **asdict(paired_bootstrap(ours[both], theirs[both]))})
    return with_holm(rows)


def groups(asked: Asked, world: World) -> list[dict[str, Any]]:
    """Compares recall@10 as served with that of item-CF, by group of users and of questions.

    Paired bootstrap with Holm's correction over all groups.
    """
    rows = []
    for kind, name, inside in kinds(asked, world):
        if inside.sum() < LEAST_GROUP:
            continue
        ours, theirs = (over_seeds(asked, way, world, inside)["recall@10"] for way in (SERVED, "item-CF"))
        figure = {"kind": kind, "group": name, "questions": int(inside.sum())}
        either = {"recall@10": float(ours.mean()), "item_cf": float(theirs.mean())}
        rows.append(figure | either | asdict(paired_bootstrap(ours, theirs)))
    return with_holm(rows)


def apart(asked: Asked, world: World) -> list[dict[str, Any]]:
    """Measures, for each way to group users, how far the recall@10 of its groups lies apart as served.

    Returns the highest less the lowest, and the probability of as much if the same users were grouped at random: the
    extremes of several groups always differ.
    """
    recall = over_seeds(asked, SERVED, world, np.ones(len(asked.segment), bool))["recall@10"]
    of_kind: dict[str, list[tuple[str, Rows]]] = {}
    for kind, name, inside in kinds(asked, world):
        if kind != OF_ITEMS and inside.sum() >= LEAST_GROUP:
            of_kind.setdefault(kind, []).append((name, inside))
    rows = []
    for kind, members in of_kind.items():
        if len(members) > 1:
            values = [recall[inside] for _, inside in members]
            far, p_value = farthest(values)
            means = [float(value.mean()) for value in values]
            ends = {"lowest": members[int(np.argmin(means))][0], "highest": members[int(np.argmax(means))][0]}
            rows.append({"kind": kind, **ends, "apart": far, "p_value": p_value})
    return with_holm(rows)


def farthest(values: Sequence[Float64Array], draws: int = 5000) -> tuple[float, float]:
    """Returns the highest less the lowest mean of the groups [users of each], and the probability of as much.

    The probability comes from permutations of the users over groups of these sizes.
    """
    starts = np.cumsum([0, *(len(value) for value in values[:-1])])
    sizes = np.array([len(value) for value in values])
    everybody = np.concatenate(values)
    rng = np.random.default_rng(0)
    found = np.ptp(np.add.reduceat(everybody, starts) / sizes)
    drawn = [np.ptp(np.add.reduceat(rng.permutation(everybody), starts) / sizes) for _ in range(draws)]
    as_much = int((np.array(drawn) >= found - 1e-12).sum())
    return float(found), (1 + as_much) / (1 + draws)


def kinds(asked: Asked, world: World) -> Iterator[tuple[str, str, Rows]]:
    """Returns (kind, name, [questions] membership) of all groups.

    By length of the history, by features of the user, and by popularity of the item asked for.
    """
    split = asked.split
    lengths = split.test.history_end - split.sequences.offsets[split.test.users]
    group, bounds = list_qualities.length_groups(lengths)
    for number, (least, most) in enumerate(bounds):
        yield "events in the history", f"{least} to {most}" if most > least else str(least), group == number
    ids = pl.DataFrame({"user_id": [split.sequences.user_ids[user] for user in split.test.users]})
    known = ids.join(asked.dataset.users, on="user_id", how="left", maintain_order="left")
    for column in known.columns[1:]:
        values = known[column].cast(pl.String)
        for value in sorted(values.drop_nulls().unique().to_list()):
            yield column, value, (values == value).fill_null(value=False).to_numpy()
    for number, name in enumerate(list_qualities.POPULARITY_GROUPS):
        yield OF_ITEMS, name, world.group[world.target] == number


def keep(data: str, found: Mapping[str, Any]) -> None:
    """Records the figures and the rows."""
    results.save_part(NAME, data, found, command=COMMAND)
    for name in dict.fromkeys((REFERENCE, *found["shipped"])):
        for measure, figure in found["strategies"][name].items():
            criterion = f"{data}: lists, {name}, {measure}"
            results.record(results.QUALITY, results.row(criterion, figure["mean"], "", COMMAND))
    for row in found["apart"]:
        criterion = f"{data}: recall@10, highest less lowest group by {row['kind']}"
        results.record(results.QUALITY, results.row(criterion, row["apart"], "", COMMAND))
    served = found["strategies"][SERVED]
    console.print(f"{data}: {served['recall@10']} recall@10, {served['ndcg@10']} NDCG@10", highlight=False)


if __name__ == "__main__":
    run_command(main)
