"""Measures what DPO and GRPO do to a generator that learns from what its own lists earned, on simulated users.

    python -m loadtests.shop.generator [--record]

A small network learns from what users clicked on random lists. Then half of the users are shown lists that are drawn
from it, and it goes on from their clicks by each objective, and, to compare, by the likelihood of what was clicked.
What its best lists would earn with the other half, whose clicks on these lists it never saw, is known exactly
(`loadtests/simulator`).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import torch
import typer

from loadtests.common import results
from loadtests.shop import slate_criteria as criteria
from loadtests.simulator.past import Click, dataset_of, earlier_clicks
from loadtests.simulator.people import People, examination
from loadtests.simulator.world import BEFORE
from loadtests.simulator.world import Shape as Tastes
from loadtests.simulator.world import World as TastesWorld
from model.data.dataset import sequences
from model.network.gpt4rec import GPT4Rec
from model.slate.generator_objectives import Feedback, Histories, Objective, Settings, fine_tune, path_log_probs
from model.training.config import TrainConfig
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.artifact.array_types import BoolArray, Float64Array, IntArray
from service.artifact.features import EVENT_TYPES, START_TYPE
from service.cli.outermost import run_command

_COMMAND = "python -m loadtests.shop.generator --record"
_K, _EVENTS, _ROWS = 10, 20, 64
_ROWS_OF = ((criteria.DPO, "dpo"), (criteria.GRPO, "grpo"), (criteria.LIKELIHOOD, "likelihood"))
_UNTIL_MS = 1_767_225_600_000


@dataclass(frozen=True, slots=True)
class Shop:
    """A trained network, its users, and what is known of their past.

    Attributes:
        people: The users.
        model: The network.
        histories: The history of each user.
        clicked: [users, items] what each has clicked on.
    """

    people: People
    model: GPT4Rec
    histories: Histories
    clicked: BoolArray


def opened(tastes: Tastes, past: int, epochs: int, folder: Path) -> Shop:
    """Lets users click on random lists, and trains a network on that.

    Args:
        tastes: How large the world is.
        past: Lists that each user has seen.
        epochs: Epochs of the training.
        folder: Where the run is kept.
    """
    people = People(TastesWorld(tastes))
    clicks = list(earlier_clicks(people, past, _K, _UNTIL_MS))
    dataset = dataset_of(people.world, clicks)
    if tuple(sequences(dataset).item_ids) != people.world.item_ids:
        raise ValueError("the data set numbers items in another order than the world")
    config = TrainConfig(size="tiny", max_epochs=epochs, batch_tokens=2000, learning_rate=3e-3, warmup_steps=20)
    Trainer(dataset, Path("data"), folder, config).fit()
    model = Run.open(folder).model().eval()
    clicked = np.zeros((tastes.users, tastes.items), bool)
    for click in clicks:
        clicked[click.user, click.item] = True
    return Shop(people, model, _histories(clicks, tastes, model), clicked)


def _histories(clicks: list[Click], tastes: Tastes, model: GPT4Rec) -> Histories:
    """The newest clicks of each user behind the start token."""
    of_user: list[list[Click]] = [[] for _ in range(tastes.users)]
    for click in clicks:
        of_user[click.user].append(click)
    shape = (tastes.users, _EVENTS + 1)
    item, kind, time_ms = (np.zeros(shape, np.int64) for _ in range(3))
    for user, some in enumerate(of_user):
        newest = some[-_EVENTS:]
        first_ms = newest[0].time_ms if newest else _UNTIL_MS
        item[user, 0], kind[user, 0], time_ms[user] = model.config.n_items + 1, START_TYPE, first_ms
        for place, click in enumerate(newest, start=1):
            item[user, place], kind[user, place] = click.item, EVENT_TYPES.index("click")
            time_ms[user, place:] = click.time_ms
    length = np.array([1 + min(len(some), _EVENTS) for some in of_user])
    return Histories(*(torch.from_numpy(one) for one in (item, kind, time_ms, length)))


@torch.no_grad()
def scores_of(model: GPT4Rec, shop: Shop, users: IntArray) -> Float64Array:
    """Returns [users, items] log π of every item; −∞ for what the user has clicked on."""
    every = torch.arange(model.config.n_items)
    found = [
        path_log_probs(model, shop.histories.of(rows), every.expand(len(rows), -1)).double().numpy()
        for rows in torch.split(torch.from_numpy(users), _ROWS)
    ]
    return np.where(shop.clicked[users], -np.inf, np.concatenate(found))


def shown(shop: Shop, users: IntArray, lists: int, seed: int) -> Feedback:
    """Shows lists to users that are drawn from the network, and returns their clicks.

    Args:
        shop: The network and the users.
        users: Who is shown lists.
        lists: Lists of each.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    score = scores_of(shop.model, shop, users)
    items, clicked = [], []
    for _ in range(lists):
        drawn = np.argsort(-(score + rng.gumbel(size=score.shape)), axis=1)[:, :_K]
        items.append(drawn)
        visits = [shop.people.visit(user, drawn[row], BEFORE) for row, user in enumerate(users.tolist())]
        clicked.append(np.stack([visit.clicked for visit in visits]))
    rows = torch.from_numpy(np.tile(users, lists))
    looks = torch.from_numpy(examination(_K).astype(np.float32))
    kept = np.concatenate(clicked)
    return Feedback(
        shop.histories.of(rows), torch.from_numpy(np.concatenate(items)), torch.from_numpy(kept), looks
    )  # fmt: skip


def expected_clicks(model: GPT4Rec, shop: Shop, users: IntArray) -> float:
    """Returns what the best list of each user is expected to earn, before anybody tires of anything."""
    best = np.argsort(-scores_of(model, shop, users), axis=1)[:, :_K]
    world = shop.people.world
    earned = [examination(_K) @ world.attraction(user, best[row], BEFORE) for row, user in enumerate(users.tolist())]
    return float(np.mean(earned))


def measure(
    tastes: Tastes, *, past: int = 30, lists: int = 8, epochs: int = 12, settings: Settings
) -> dict[str, float]:
    """Returns what the lists of each network earn, relative to those of the network before.

    Args:
        tastes: How large the world is.
        past: Random lists that each user has seen.
        lists: Lists of the network that each user of one half is shown.
        epochs: Epochs of the first training.
        settings: How the network goes on.
    """
    with tempfile.TemporaryDirectory() as folder:
        shop = opened(tastes, past, epochs, Path(folder) / "run")
    users = np.random.default_rng(tastes.seed).permutation(tastes.users)
    taught, judged = np.sort(users[: tastes.users // 2]), np.sort(users[tastes.users // 2 :])
    feedback = shown(shop, taught, lists, tastes.seed)
    before = expected_clicks(shop.model, shop, judged)
    objectives: tuple[Objective, ...] = get_args(Objective)
    found = {"before": before}
    for objective in objectives:
        tuned = fine_tune(shop.model, feedback, objective, settings)
        found[objective] = expected_clicks(tuned, shop, judged) / before
    return found


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Worlds.")] = criteria.SEEDS,
    users: Annotated[int, typer.Option(min=20, help="Users, half of whom are shown lists.")] = 1_000,
    items: Annotated[int, typer.Option(min=40, help="Items.")] = 300,
    record: Annotated[bool, typer.Option("--record", help="Write rows into loadtests/results/shop.json.")] = False,
) -> None:
    """Measure DPO and GRPO on a generator, on simulated users."""
    tastes = Tastes(users=users, items=items, base=-3.5)
    found = []
    for seed in range(seeds):
        found.append(measure(replace(tastes, seed=seed), settings=Settings(seed=seed)))
        typer.echo(f"seed {seed}: {found[-1]}", err=True)
    for name, objective in _ROWS_OF:
        row = criteria.row(name, 100.0 * float(np.mean([one[objective] for one in found])) - 100.0, "%", _COMMAND)
        typer.echo(f"{name}: {row.value:+g} %")
        if record:
            results.record(results.SHOP, row)


if __name__ == "__main__":
    run_command(main)
