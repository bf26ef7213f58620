"""Whether each segment's default strategy is the one that serves the segment's objective, on data.

    python -m loadtests.quality.segments --runs RUN,RUN,RUN --data DIR --work DIR [--users 3000] [--policies FILE]

Every user is placed by the rules of the policies when asked, and each segment's users are asked by every strategy of a
grid (`loadtests.quality.strategies`, whose lists are kept in `--work`). The validation questions choose: of the
strategies that are above the floor by more than chance, the best for the objective, and those that no test tells from
it. The test questions judge: a default holds where it is one of the chosen, no other strategy is better for the
objective, by a paired bootstrap over users with Holm's correction, and its accuracy is above the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from loadtests.common import results
from loadtests.quality.means import with_holm
from loadtests.quality.strategies import (
    BASELINES,
    SERVED,
    Asked,
    Data,
    PolicyFile,
    Runs,
    Users,
    Work,
    World,
    ask,
    label,
    over_seeds,
)
from model.evaluation.bootstrap import Interval, paired_bootstrap
from service.artifact.array_types import Float64Array
from service.cli.outermost import run_command
from service.policies import policies
from service.settings.service_settings import DEFAULT_POLICIES

NAME = "quality_segments"
COMMAND = "python -m loadtests.quality.segments --runs RUN,RUN,RUN --data DIR --work DIR"
# Users of a segment, at least: fewer decide nothing.
LEAST_USERS = 100
SIGNIFICANT = 0.05

console = Console(stderr=True)


@dataclass(frozen=True)
class Objective:
    """What lists are for: as much of `measure` as there is, at an NDCG@10 of `floor` × the segment's best."""

    measure: str
    floor: float
    why: str


ACCURATE = Objective("ndcg@10", 0.0, "the next item, as high as can be")
OBJECTIVES: Mapping[str, Objective] = {
    "new": Objective("inter", 0.5, "lists unlike those of others, so that the next click tells something"),
    "conservative": ACCURATE,
    "explorer": Objective("intra", 0.5, "different kinds of items in one list"),
    "active": ACCURATE,
}
# Where items have no content, nobody can tell whether two are of different kinds; how rarely they are seen stands in.
WITHOUT_CONTENT = "novelty"


@dataclass(frozen=True)
class Point:
    """A strategy in a segment: [users] accuracy and what the objective asks for, means over the seeds."""

    name: str
    accuracy: Float64Array
    wanted: Float64Array

    @property
    def at(self) -> tuple[float, float]:
        """Mean accuracy and mean figure of the objective."""
        return float(self.accuracy.mean()), float(np.nanmean(self.wanted))


def main(runs: Runs, data: Data, work: Work, users: Users = 3000, policy_file: PolicyFile = DEFAULT_POLICIES) -> None:
    """Validates the policies' defaults."""
    shipped = policies.load(policy_file)
    with console.status("asking") as status:
        folders = [Path(run) for run in runs.split(",")]
        valid, test = (ask(folders, data, work, shipped, users, status.update, part) for part in ("valid", "test"))
        status.update("comparing")
        parts = [(asked, World.of(asked)) for asked in (valid, test)]
        found = {
            segment.name: one
            for segment in shipped.segments
            if (one := of_segment(parts, segment.name, label(segment.decoding.build()))) is not None
        }
    sizes = {name: int((test.segment == name).sum()) for name in shipped.names}
    keep(test.dataset.name, {"users": len(test.segment), "seeds": len(test.lists), "sizes": sizes, "judged": found})


def of_segment(parts: Sequence[tuple[Asked, World]], segment: str, default: str) -> dict[str, Any] | None:
    """Chooses on validation and judges the default on test, the two `parts`.

    None if either has too few users, or the segment has no objective.
    """
    objective = objective_of(segment, parts[0][1])
    if objective is None or min((asked.segment == segment).sum() for asked, _ in parts) < LEAST_USERS:
        return None
    valid, test = (points(asked, world, asked.segment == segment, objective) for asked, world in parts)
    return judged(chosen(valid, objective), test, default, objective)


def objective_of(segment: str, world: World) -> Objective | None:
    """Returns the objective of a segment; None if it has none."""
    objective = OBJECTIVES.get(segment)
    if objective is not None and objective.measure == "intra" and world.content is None:
        return Objective(
            WITHOUT_CONTENT, objective.floor, "items rarely seen, in the place of different kinds of items"
        )
    return objective


def points(asked: Asked, world: World, rows: npt.NDArray[np.bool_], objective: Objective) -> list[Point]:
    """Returns every strategy that the policies may name, for the users of a segment."""
    values = {name: over_seeds(asked, name, world, rows) for name in asked.lists[0] if name not in (*BASELINES, SERVED)}
    return [Point(name, one["ndcg@10"], one[objective.measure]) for name, one in values.items()]


def frontier(at: Sequence[tuple[float, float]]) -> list[bool]:
    """Returns whether no other point is as good in both figures and better in one."""
    return [
        not any(x >= own[0] and y >= own[1] and (x, y) != own for x, y in at)
        for own in at
    ]  # fmt: skip


def chosen(among: Sequence[Point], objective: Objective) -> dict[str, Any]:
    """Chooses, among the strategies significantly above the floor, the best for the objective.

    `as_good` are all that no test tells from it.
    """
    accurate = max(among, key=lambda point: point.at[0])
    allowed = [point for point in among if point is accurate or above_floor(point, accurate, objective).low >= 0]
    best = max(allowed, key=lambda point: point.at[1])
    others = [point for point in allowed if point is not best]
    behind = with_holm([{"name": p.name, **asdict(_difference(p.wanted, best.wanted))} for p in others])
    as_good = [row["name"] for row in behind if row["p_holm"] >= SIGNIFICANT]
    return {"best": best.name, "users": len(best.accuracy), "as_good": [best.name, *as_good]}


def above_floor(point: Point, accurate: Point, objective: Objective) -> Interval:
    """The accuracy of a strategy less the floor, `accurate` being the segment's best."""
    return paired_bootstrap(point.accuracy, objective.floor * accurate.accuracy)


def judged(choice: Mapping[str, Any], among: Sequence[Point], default: str, objective: Objective) -> dict[str, Any]:
    """Returns the points, the frontier, the strategies that beat the default, and whether the default holds.

    `choice` is what the validation questions chose.
    """
    at = {point.name: point.at for point in among}
    on = dict(zip(at, frontier(list(at.values())), strict=True))
    own = next(point for point in among if point.name == default)
    rivals = [point for point in among if point.name != default]
    compared = with_holm([versus(point, own, objective) for point in rivals])
    beaten = [row["name"] for row in compared if row["better"] and row["p_holm"] < SIGNIFICANT]
    floor = above_floor(own, max(among, key=lambda point: point.at[0]), objective)
    return {
        "users": len(own.accuracy),
        "default": default,
        "objective": asdict(objective),
        "points": {
            name: {"ndcg@10": accuracy, objective.measure: wanted, "frontier": on[name]}
            for name, (accuracy, wanted) in at.items()
        },
        "compared": compared,
        "beaten_by": beaten,
        "chosen": choice,
        "above_floor": asdict(floor),
        "holds": default in choice["as_good"] and floor.difference >= 0 and not beaten,
    }


def versus(rival: Point, own: Point, objective: Objective) -> dict[str, Any]:
    """Compares a rival with the default.

    The rival is better if its means are as good in both figures and a test finds it better in one of them, whose p is
    returned; if the objective is accuracy, there is only that figure.
    """
    (accuracy, wanted), (own_accuracy, own_wanted) = rival.at, own.at
    tests = {"ndcg@10": paired_bootstrap(rival.accuracy, own.accuracy)}
    if objective.measure != "ndcg@10":
        tests[objective.measure] = _difference(rival.wanted, own.wanted)
    better = accuracy >= own_accuracy and wanted >= own_wanted and (accuracy, wanted) != own.at
    # Either test may find it, so the smaller p counts as one of two (Bonferroni).
    p_value = min(1.0, len(tests) * min(test.p_value for test in tests.values()))
    return {
        "name": rival.name,
        "better": better,
        "p_value": p_value,
        **{f"{measure} gained": test.difference for measure, test in tests.items()},
    }


def _difference(ours: Float64Array, theirs: Float64Array) -> Interval:
    """Among the users for whom both are defined."""
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    return paired_bootstrap(ours[both], theirs[both])


def keep(data: str, found: Mapping[str, Any]) -> None:
    """Records the figures and the rows."""
    results.save_part(NAME, data, found, command=COMMAND)
    for name, one in found["judged"].items():
        criterion = f"{data}: the default of {name} serves its objective"
        results.record(results.QUALITY, results.row(criterion, float(one["holds"]), "of 1", COMMAND, at_least=1))
        floor, choice = one["above_floor"], one["chosen"]
        said = f"{name}: {one['default']}, chosen {choice['best']} of {choice['as_good']}"
        above = f"{floor['difference']:.4f} ({floor['low']:.4f} … {floor['high']:.4f})"
        beaten = ", ".join(one["beaten_by"]) or "nobody"
        console.print(f"{data}, {said}, beaten by {beaten}, above its floor by {above}", highlight=False)


if __name__ == "__main__":
    run_command(main)
