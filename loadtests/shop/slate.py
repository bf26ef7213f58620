"""Measures what is learned of the order of lists on simulated users whose truth is known.

    python -m loadtests.shop.slate [--seeds 3] [--record]

In each world lists are drawn and clicked on (`slate_world`). What is learned of them is compared with the truth: the
position bias, and what the best eight items by score earn in the learned order, against all orders of these items.
Then the decision whether an order is kept is made as `gpt4rec order learn` makes it, on a part of the lists, and again
in a world in which the order by score is the best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import typer

from loadtests.common import results
from loadtests.shop import slate_criteria as criteria
from loadtests.shop.slate_world import Shape, World
from model.slate.deciding import OrderSample, decide
from model.slate.learning import Learned, OrderReward, learn
from model.slate.policy_gradient import learn_policy
from service.cli.outermost import run_command
from service.ordering.ordering import Ordering

_COMMAND = "python -m loadtests.shop.slate --record"


@dataclass(frozen=True, slots=True)
class Found:
    """What one seed came to.

    Attributes:
        bias: Largest relative error of the position bias.
        by_score: What lists by score are expected to earn in clicks, of the best order's.
        clicks: The same of the learned order.
        dwell: The same in dwell, of the order learned for dwell.
        policy: The same in clicks, of the order by policy gradient.
        kept: Whether the order was kept.
        kept_plain: Whether one was kept where the order by score is the best one.
    """

    bias: float
    by_score: float
    clicks: float
    dwell: float
    policy: float
    kept: bool
    kept_plain: bool


def measure(seed: int, shape: Shape, deciding: Shape, judged: int) -> Found:
    """Measures one world.

    Args:
        seed: Its seed.
        shape: How large it is.
        deciding: How large the worlds are in which it is decided whether an order is kept.
        judged: Lists that are put into order and judged by the truth.
    """
    world = World(shape, seed)
    seen = world.lists()
    learned, of_dwell = learn(seen, world.items), learn(seen, world.items, "dwell")
    fewer = World(deciding, seed)
    sample = fewer.logged()
    policy = learn_policy(fewer.lists(), sample.lists, fewer.items, "clicks")
    return Found(
        bias=float(np.abs(learned.bias.examination / world.examination - 1.0).max()),
        by_score=_share(world, None, "clicks", judged),
        clicks=_share(world, learned, "clicks", judged),
        dwell=_share(world, of_dwell, "dwell", judged),
        policy=_share(fewer, policy, "clicks", judged),
        kept=_kept(fewer),
        kept_plain=_kept(World(deciding, seed, plain=True)),
    )


def _share(world: World, learned: Learned | None, reward: OrderReward, judged: int) -> float:
    """What the learned order earns of what the best order does, over some situations."""
    earned = best = 0.0
    k, dwell = world.shape.k, reward == "dwell"
    for situation in range(min(judged, world.shape.situations)):
        _, _, places = world.truth(situation)
        order = np.arange(k)
        if learned is not None:
            scores = world.score[situation, places].astype(np.float32)
            order = Ordering(learned.weights, k).order(world.item[situation, places], scores)
        earned += world.earned(situation, order, dwell=dwell)
        best += world.best(situation, dwell=dwell)
    return earned / best


def _kept(world: World) -> bool:
    """Whether an order is kept, as the command decides it."""
    return decide(OrderSample(world.logged()), world.items, first=world.shape.k).better


def report(found: Sequence[Found]) -> dict[str, tuple[float, str]]:
    """Returns value and unit of each criterion."""
    least = {
        name: 100.0 * min(getattr(one, name) for one in found) for name in ("by_score", "clicks", "dwell", "policy")
    }
    return {
        criteria.BIAS: (100.0 * max(one.bias for one in found), "%"),
        criteria.BY_SCORE: (least["by_score"], "%"),
        criteria.CLICKS: (least["clicks"], "%"),
        criteria.DWELL: (least["dwell"], "%"),
        criteria.POLICY: (least["policy"], "%"),
        criteria.SWITCHED_ON: (sum(one.kept for one in found), "orders"),
        criteria.LEFT_OFF: (sum(one.kept_plain for one in found), "orders"),
    }


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Worlds.")] = criteria.SEEDS,
    subjects: Annotated[int, typer.Option(min=20, help="Users of a world; 8 lists each.")] = 8_000,
    deciding: Annotated[int, typer.Option(min=20, help="Users of the worlds that are decided in.")] = 2_000,
    judged: Annotated[int, typer.Option(min=1, help="Lists that are judged by the truth.")] = criteria.JUDGED,
    record: Annotated[bool, typer.Option("--record", help="Write rows into loadtests/results/shop.json.")] = False,
) -> None:
    """Measure the order of lists on simulated users."""
    shape = Shape(subjects=subjects)
    found = []
    for seed in range(seeds):
        found.append(measure(seed, shape, replace(shape, subjects=deciding), judged))
        typer.echo(f"seed {seed}: {found[-1]}", err=True)
    for name, (value, unit) in report(found).items():
        row = criteria.row(name, value, unit, _COMMAND)
        typer.echo(f"{name}: {row.value:g} {unit} {row.limit or ''} {'' if row.holds is None else row.holds}")
        if record:
            results.record(results.SHOP, row)


if __name__ == "__main__":
    run_command(main)
