"""Writes the past of simulated users whose groups are known, so that lists of one history can be compared between them.

    python -m loadtests.simulator.groups --out DATA [--groups 2] [--users 800] [--lists 30]

Groups differ in what they like (`world`), and by nothing else. A model of these data has the feature `group`, and
`loadtests.loop.fairness` says what the group alone does to the list of a history.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadtests.simulator.past import dataset_of, earlier_clicks
from loadtests.simulator.people import People
from loadtests.simulator.world import Shape, World
from service.cli.outermost import run_command

_K = 10
# 2026-01-01, so that the same options make the same data.
_UNTIL_MS = 1_767_225_600_000


def main(
    out: Annotated[Path, typer.Option(help="Folder of the data set to write.")],
    groups: Annotated[int, typer.Option(min=2, max=12, help="Groups of users.")] = 2,
    users: Annotated[int, typer.Option(min=10, help="Users.")] = 800,
    items: Annotated[int, typer.Option(min=50, help="Items.")] = 400,
    lists: Annotated[int, typer.Option(min=1, help="Lists that each user has seen.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Write a data set of clicks of users with the feature `group`."""
    people = People(World(Shape(users=users, items=items, groups=groups, seed=seed)))
    dataset = dataset_of(people.world, earlier_clicks(people, lists, _K, _UNTIL_MS), groups=True)
    dataset.save(out)
    typer.echo(f"{len(dataset.events):,} clicks of {users:,} users in {groups} groups: {out}")


if __name__ == "__main__":
    run_command(main)
