"""The frontier of diversity: how accurate and how diverse lists are, for a sweep of the weight of both methods.

    python -m loadtests.shop.diversity --artifact DIR --data DATA [--users 1000] [--record]

Pools are decoded as the service decodes them for lists with rules, and the code of the service chooses from them.
Diversity is one less the mean cosine of the categories, brands and attributes of a list's items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import sparse

from loadtests.common import results
from loadtests.quality.strategies import sampled
from loadtests.shop import list_criteria as criteria
from model.data.dataset import Dataset, sequences
from model.data.split import Holdout, Split
from model.evaluation import metrics
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import EngineJobs
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.artifact.array_types import IntArray
from service.cli.outermost import run_command
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.fallback import Constraints, Fallback, RecommendationList
from service.engine.run_groups import result_of
from service.rules.enforce import DrawnBy, Enforcer
from service.rules.items import Items
from service.rules.reserve import Reserve
from service.rules.ruling import Ruling
from service.rules.spec import Diversity
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

K = 10
_AT_ONCE = 64
_GREEDY = Decoding("greedy")
_COMMAND = "python -m loadtests.shop.diversity --artifact ARTIFACT --data DATA --record"

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """Questions with the pools of their lists.

    Attributes:
        engine: The opened artefact.
        pools: The candidates of each question.
        excluded: What each list leaves out.
        target: [questions] what was taken next.
        content: [items, features] what items are alike by.
    """

    engine: Engine
    pools: Sequence[RecommendationList]
    excluded: Sequence[IntArray]
    target: IntArray
    content: sparse.csr_array

    def figures(self, diversity: Diversity | None) -> Figures:
        """Returns accuracy and diversity of the lists."""
        lists = np.full((len(self.pools), K), -1, np.int64)
        for number, (pool, excluded) in enumerate(zip(self.pools, self.excluded, strict=True)):
            items = pool.items[:K] if diversity is None else self._chosen(pool, excluded, diversity)
            lists[number, : len(items)] = items
        ranks = metrics.target_ranks(lists, self.target)
        values = (metrics.recall(ranks, K), metrics.ndcg(ranks, K), metrics.diversity(lists, K, self.content))
        return {name: float(metrics.mean(value) or 0.0) for name, value in zip(criteria.MEASURES, values, strict=True)}

    def _chosen(self, pool: RecommendationList, excluded: IntArray, diversity: Diversity) -> IntArray:
        artifact = self.engine.artifact
        fallback = Fallback.of(artifact.item_cf, artifact.popularity, Ranker.of(artifact.signals, artifact.ranker))
        items = Items(artifact.catalogue, artifact.popularity, artifact.catalogue.index)
        reserve = Reserve(items, fallback, Constraints(None, excluded), UserHistory)
        return Enforcer(Ruling((), diversity), K, reserve, DrawnBy(_GREEDY, 0)).of(pool).items


def asked(engine: Engine, dataset: Dataset, split: Split, part: Holdout, pool: int) -> Asked:
    """Decodes the pools of questions.

    Args:
        engine: The opened artefact.
        dataset: The data set.
        split: Its split.
        part: The questions.
        pool: Width of the beam, and the most candidates of a list.
    """
    jobs = EngineJobs(engine, _GREEDY)
    histories = Histories(part.users, part.history_end, split.sequences, not engine.artifact.repeats)
    excluded = [histories.excluded(i) for i in range(len(histories))]
    pools: list[RecommendationList] = []
    for start in range(0, len(histories), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(histories)))
        made = [jobs.of(histories.events(i, engine.artifact.vocabulary), excluded[i], K) for i in rows]
        made = [replace(job, request=replace(job.request, width=pool, pool=pool)) for job in made]
        decoded = [result_of(one).decoded for one in engine.run(made)]
        pools += [RecommendationList(one.items, one.scores, one.source) for one in decoded]
    content = metrics.item_content(dataset.items, split.sequences.item_ids, dataset.category_kind)
    return Asked(engine, pools, excluded, part.target, content)


def frontier(of: Asked) -> dict[tuple[str, float], Figures]:
    """Returns the figures of each method and weight; ("none", 0) has those of the list without diversity."""
    found = {("none", 0.0): of.figures(None)}
    for method in criteria.METHODS:
        for weight in criteria.WEIGHTS:
            diversity = Diversity.model_validate({"method": method, "weight": weight})
            found[method, weight] = of.figures(diversity)
    return found


def kept(valid: Mapping[tuple[str, float], Figures], test: Mapping[tuple[str, float], Figures], method: str) -> float:
    """Returns the per cent of NDCG@10 that are left at the weight that validation chooses; NaN if none does."""
    accuracy, diverse = criteria.MEASURES[1], criteria.MEASURES[2]
    wanted = criteria.MORE_DIVERSE * valid["none", 0.0][diverse]
    for weight in criteria.WEIGHTS:
        if valid[method, weight][diverse] >= wanted:
            return 100.0 * test[method, weight][accuracy] / test["none", 0.0][accuracy]
    return float("nan")


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[Path, typer.Option(help="The data set that it was trained on.")],
    users: Annotated[int, typer.Option(min=1, help="The most questions of each part.")] = 1000,
    pool: Annotated[int, typer.Option(min=K, max=128, help="Candidates of a list.")] = 32,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/shop.json.")] = False,
) -> None:
    """Measure the frontier of diversity."""
    engine = Engine.open(artifact, device="cpu", threads=1)
    dataset = Dataset.load(data)
    split = split_of(TrainConfig().updated(engine.artifact.manifest["training"]), sequences(dataset))
    parts = (replace(split, test=split.valid), split)
    valid, test = (frontier(asked(engine, dataset, split, sampled(part, users).test, pool)) for part in parts)
    for (method, weight), figures in test.items():
        typer.echo(f"{method} {weight:g}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    for method in criteria.METHODS:
        typer.echo(f"{criteria.kept(method)}: {kept(valid, test, method):.1f}")
    if record:
        for (method, weight), figures in test.items():
            for measure, value in figures.items():
                name = criteria.of_weight(method, weight, measure)
                results.record(results.SHOP, criteria.row(name, value, "", _COMMAND))
        for method in criteria.METHODS:
            results.record(results.SHOP, criteria.row(criteria.kept(method), kept(valid, test, method), "%", _COMMAND))


if __name__ == "__main__":
    run_command(main)
