"""Lists of every decoding strategy of a grid, through the graphs that serve, and who is decoded how.

Lists are kept in the work folder by artefact and number of users, and are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from scipy import sparse

from model.data.dataset import Dataset
from model.data.split import Holdout, Split
from model.evaluation import list_qualities, metrics
from model.evaluation.evaluate import Part, Ranker, evaluate, item_cf_ranker, popularity_ranker
from model.evaluation.rankers import engine_ranker
from model.training.run_folder import Run
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.artifact import Artifact
from service.common.atomic_files import save_aside
from service.engine.decoding import Decoding, joined_width
from service.engine.engine import Engine
from service.policies.policies import Policies
from service.policies.segments import FACT_WINDOW, facts

Say = Callable[[str], None]

# Options of the commands that ask every strategy.
Runs = Annotated[str, typer.Option(help="Run folders, seeds of one training, separated by commas.")]
Data = Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")]
Work = Annotated[Path, typer.Option(help="Folder of the lists; existing ones are reused.")]
Users = Annotated[int, typer.Option(min=2, help="Test users at most, drawn once and for all.")]
PolicyFile = Annotated[Path, typer.Option("--policies", help="Segments and their decoding.")]

K = 10
# A beam of 10 for ten items has the greatest width there is; one of 1 is greedy.
GRID: tuple[Decoding, ...] = (
    Decoding("greedy"),
    *(Decoding("beam", beam_width=width) for width in (2, 5, 10)),
    *(Decoding("top_p", top_p=mass) for mass in (0.5, 0.7, 0.8, 0.9, 0.95)),
    *(Decoding("temperature", temperature=heat) for heat in (0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)),
)
SERVED = "as the policies say"
BASELINES = ("item-CF", "popularity")

# Of each list, of each list beside those of others, and of all lists together.
OF_LISTS = ("recall@10", "ndcg@10", "novelty", "intra", "inter", "tail")
OF_PAIRS = ("inter",)
OF_ALL = ("coverage", "entropy", "gini", "js_asked", "js_trained", "kl_asked")


def label(decoding: Decoding) -> str:
    """Returns the name of a decoding in tables."""
    match decoding.strategy:
        case "beam":
            return f"beam {decoding.beam_width}"
        case "top_p":
            heat = "" if decoding.temperature == 1.0 else f", temperature {decoding.temperature:g}"
            return f"top-p {decoding.top_p:g}{heat}"
        case "temperature":
            return f"temperature {decoding.temperature:g}"
        case "greedy":
            return "greedy"


@dataclass(frozen=True)
class Asked:
    """Questions of a data set, and what every seed's artefact listed for them.

    split     its `test` are the questions, of whichever part they were asked for
    segment   [questions] name of the user's segment when asked
    lists     of each artefact: label → [questions, K], the best first, padded with -1
    """

    dataset: Dataset
    split: Split
    policies: Policies
    segment: npt.NDArray[np.str_]
    lists: Sequence[Mapping[str, IntArray]]


def ask(
    runs: Sequence[Path], data: Path, work: Path, policies: Policies, users: int, say: Say, part: Part = "test"
) -> Asked:
    """Every strategy of the grid and of the policies, for at most `users` questions of a part drawn once and for all.

    Raises ValueError where the runs do not have the same split or have no artefact.
    """
    first = Run.open(runs[0])
    dataset = first.dataset(data)
    whole = first.split(dataset)
    others = [Run.open(run).split(dataset) for run in runs[1:]]
    # Who is asked for validation as well: what that holds out of one run another may have been trained on.
    asked_of = [(other.test.users, other.valid.users) for other in (whole, *others)]
    if any(not np.array_equal(a, b) for users_of in zip(*asked_of, strict=True) for a, b in pairwise(users_of)):
        raise ValueError("the runs have different splits; name the seeds of one training")
    split = sampled(whole if part == "test" else replace(whole, test=whole.valid), users)
    decodings = {label(d): d for d in (*GRID, *(segment.decoding.build() for segment in policies.segments))}
    lists, segment = [], np.zeros(0, np.str_)
    for run in runs:
        engine = Engine.open(artifact_of(run), device="cpu", threads=1)
        segment = segments(engine.artifact, split, policies) if not len(segment) else segment
        kept = work / f"{dataset.name}-{engine.artifact.model_version}-{part}-{len(split.test)}"
        systems: dict[str, Ranker] = {name: engine_ranker(engine, d, k=K) for name, d in decodings.items()}
        systems["item-CF"] = item_cf_ranker(engine.artifact.item_cf, engine.artifact.popularity)
        systems["popularity"] = popularity_ranker(engine.artifact.popularity)
        found = {
            name: _listed(kept / file_name(name, decodings.get(name)), name, ranker, split, say)
            for name, ranker in systems.items()
        }
        chosen = {s.name: found[label(s.decoding.build())] for s in policies.segments}
        found[SERVED] = np.stack([chosen[name][row] for row, name in enumerate(segment)])
        lists.append(found)
    return Asked(dataset, split, policies, segment, lists)


def artifact_of(run: Path) -> Path:
    """Returns the newest artefact of a run.

    Raises:
        ValueError: If there is none.
    """
    made = sorted((run / "artifacts").glob("*/manifest.json"), key=lambda file: file.stat().st_mtime)
    if not made:
        raise ValueError(f"no artefact in {run / 'artifacts'}; export the run into it")
    return made[-1].parent


def sampled(split: Split, users: int) -> Split:
    """Returns the same split with at most `users` test questions, drawn once and for all."""
    t = split.test
    if len(t) <= users:
        return split
    rows = np.sort(np.random.default_rng(0).permutation(len(t))[:users])
    return replace(split, test=Holdout(t.users[rows], t.history_end[rows], t.target[rows]))


def file_name(name: str, decoding: Decoding | None) -> str:
    """Returns the file of the lists; its name holds everything they depend on besides the artefact."""
    if decoding is None:
        return f"{name}.npy"
    width = decoding.width(K)
    return f"{name}, {width} and {joined_width(K, width, sampled=decoding.sampled)}.npy"


def _listed(kept: Path, name: str, ranker: Ranker, split: Split, say: Say) -> IntArray:
    if not kept.exists():
        say(f"{kept.parent.name}: {name}")
        lists = evaluate({name: ranker}, split, samples=1).systems[name].lists[:, :K]
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_aside(kept, lists)
    found: IntArray = np.load(kept, allow_pickle=False)
    return found


def segments(artifact: Artifact, split: Split, policies: Policies) -> npt.NDArray[np.str_]:
    """Returns the segment of each history [questions], by the service's own facts and rules.

    Recency is unknown, as the gap to now is in the protocol.
    """
    catalogue, log = artifact.catalogue, split.sequences
    index = artifact.vocabulary.item_index
    names = []
    for row in range(len(split.test)):
        ids = [log.item_ids[item] for item in log.item[split.history(split.test, row)]]
        recent = [catalogue.categories(index[item_id]) for item_id in ids[-FACT_WINDOW:]]
        names.append(policies.choose(facts(ids, recent, None, 0, catalogue.n_categories)).name)
    return np.array(names)


@dataclass(frozen=True)
class World:
    """What lists are measured against."""

    target: IntArray  # [questions]
    asked: IntArray  # [items] how often an item is a target
    trained: IntArray  # [items] training events
    information: Float64Array  # [items] bits
    content: sparse.csr_array | None  # [items, features]
    group: IntArray  # [items] head, middle, tail

    @classmethod
    def of(cls, asked: Asked) -> World:
        """Collects the references of a data set."""
        split, dataset = asked.split, asked.dataset
        train, n = split.train.item, split.sequences.n_items
        content = metrics.item_content(dataset.items, split.sequences.item_ids, dataset.category_kind)
        return cls(
            split.test.target,
            np.bincount(split.test.target, minlength=n),
            np.bincount(train, minlength=n),
            metrics.self_information(train, n),
            content if content.nnz else None,
            list_qualities.popularity_group(train, n),
        )

    def among(self, rows: npt.NDArray[np.bool_]) -> World:
        """For some of the questions."""
        target = self.target[rows]
        return replace(self, target=target, asked=np.bincount(target, minlength=len(self.asked)))


def of_lists(lists: IntArray, world: World) -> dict[str, Float64Array]:
    """Returns measure → [questions] of each list; `intra` only if items have content."""
    ranks = metrics.target_ranks(lists, world.target)
    found = {
        "recall@10": metrics.recall(ranks, K),
        "ndcg@10": metrics.ndcg(ranks, K),
        "novelty": metrics.novelty(lists, K, world.information),
        "inter": list_qualities.inter_list_diversity(lists, K, len(world.asked)),
        "tail": list_qualities.tail_share(lists, K, world.group),
    }
    return found if world.content is None else found | {"intra": metrics.diversity(lists, K, world.content)}


def of_all(lists: IntArray, world: World) -> dict[str, float]:
    """Returns measure → figure of all lists together.

    Entropy is in bits; divergences are from the items asked for and from those of the training.
    """
    shown = list_qualities.exposure(lists, K, len(world.asked))
    return {
        "coverage": metrics.coverage(lists, K, len(world.asked)),
        "entropy": list_qualities.entropy(shown),
        "gini": list_qualities.gini(shown),
        "js_asked": list_qualities.jensen_shannon(shown, world.asked),
        "js_trained": list_qualities.jensen_shannon(shown, world.trained),
        "kl_asked": list_qualities.kullback_leibler(world.asked, shown),
    }


def figures(lists: IntArray, world: World) -> dict[str, float | None]:
    """Returns every measure; those of single lists as means."""
    each = {name: metrics.mean(values) for name, values in of_lists(lists, world).items()}
    return {**each, **of_all(lists, world)}


def over_seeds(asked: Asked, name: str, world: World, rows: npt.NDArray[np.bool_]) -> dict[str, Float64Array]:
    """Returns measure → [questions of the rows] of each list, as the mean over the seeds.

    The values can be compared by a bootstrap over the questions.
    """
    inside = world.among(rows)
    seeds = [of_lists(lists[name][rows], inside) for lists in asked.lists]
    found = {m: np.asarray(np.mean([one[m] for one in seeds], axis=0), np.float64) for m in seeds[0]}
    return {m: list_qualities.widened_for_pairs(values) if m in OF_PAIRS else values for m, values in found.items()}
