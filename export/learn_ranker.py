"""Learns the ranker's weights of a run, through the graphs that will be served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.artifact_writer import Parts, write
from export.publish import staging
from model.data.split import Split
from model.evaluation.segments import Segments
from model.ranking.cold_bonus import choose_bonus
from model.ranking.gather import Gathered, gather
from model.ranking.learning import Learned, best_blend, learn
from model.ranking.proposals import Proposer
from model.ranking.without_network import ITEM_CF_ALONE
from service.artifact.artifact import Artifact
from service.artifact.ranker_weights import DEFAULT_GROUP, DENSE, PATH, RankerWeights, blend_weights
from service.artifact.signal_files import COLD
from service.engine.engine import Engine
from service.signals.ranker import Ranker

# Blends of path and dense score among which the prior's is chosen; without questions the first.
BLENDS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.0)
# Validation questions asked; a few thousand pin the weights down (`curve` in the manifest).
QUESTIONS = 6000
# The same for a large catalogue, where a question takes longer.
QUESTIONS_LARGE = 2000

Say = Callable[[str], None]


@dataclass(frozen=True)
class LearnedRanker:
    """The weights, the blend that their prior is, and what the report says of them."""

    weights: RankerWeights
    blend: float
    report: Mapping[str, Any]

    def notes(self) -> list[str]:
        """Returns sentences about what was learned, for a reader of the command's output."""
        if not self.report["learned"]:
            return [
                f"ranker: nothing to learn from {self.report['answered']:,} answered questions of validation; path and "
                f"dense score rank by the blend {self.blend:g}"
            ]
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in self.report["weights"].items())
        before, after = self.report["ndcg@10_of_the_blend"], self.report["ndcg@10"]
        return [
            f"ranker: {weights}; NDCG@10 on held-out questions of validation {after:.4f}, by the blend {before:.4f}"
        ]


def learn_ranker(parts: Parts, split: Split, out: Path, *, exclude_history: bool, say: Say) -> LearnedRanker:
    """Learns the weights of all signals on the validation part of a split.

    Args:
        parts: Everything of the artefact besides the weights; path and dense score alone rank its lists.
        split: The split of the run.
        out: Folder of artefacts, in which the graphs are written for a while.
        exclude_history: Whether items of the history are left out of lists.
        say: Receives what is being done.

    Raises:
        ServiceError: A run of a graph failed.
    """
    asked = _asked(parts, split, out, exclude_history=exclude_history, say=say)
    gathered = asked.without_marks()
    blend = best_blend(gathered.with_network, BLENDS, PATH, DENSE)
    say("learning the weights")
    network = learn(
        gathered.with_network, blend_weights(blend), positive=(PATH, DENSE), progress=_progress(say, "the weights")
    )
    say("learning the weights without the network")
    alone = learn(gathered.without_network, ITEM_CF_ALONE, progress=_progress(say, "the weights without the network"))
    about = {
        "learned": {"with_network": network.about, "without_network": alone.about, "candidate_recall": gathered.recall}
    }
    groups = {DEFAULT_GROUP: network.weights, **network.groups}
    weights = RankerWeights(tuple(parts.all_signals), groups, alone.weights or ITEM_CF_ALONE, about)
    weights = with_cold_bonus(weights, asked)
    return LearnedRanker(weights, blend, _report(network, gathered, blend, weights))


def with_cold_bonus(weights: RankerWeights, asked: Gathered) -> RankerWeights:
    """Returns the weights with those of cold items, chosen with and without the network; as they are without any.

    Args:
        weights: The weights of all other signals.
        asked: The questions that they were learned from.
    """
    if COLD not in weights.signals:
        return weights
    network = choose_bonus(asked.with_network, weights.groups)
    alone = choose_bonus(asked.without_network, {DEFAULT_GROUP: weights.without_network})
    about = {COLD: {"with_network": network.to_json(), "without_network": alone.to_json()}}
    return replace(
        weights,
        groups={group: network.added_to(of_group) for group, of_group in weights.groups.items()},
        without_network=alone.added_to(weights.without_network),
        about={**weights.about, **about},
    )


def _asked(parts: Parts, split: Split, out: Path, *, exclude_history: bool, say: Say) -> Gathered:
    with staging(out) as folder:
        write(parts, folder, "float32")
        artifact = Artifact.open(folder)
        engine = Engine(artifact, device="cpu")
        signals = Ranker.of(artifact.signals, artifact.ranker)
        return gather(
            split,
            split.valid.sample(QUESTIONS if parts.dense_candidates else QUESTIONS_LARGE),
            engine,
            Proposer.of(signals),
            Segments(artifact.catalogue, engine.receptive_field),
            exclude_history=exclude_history,
            report=lambda done, total: say(f"gathering candidates: {done:,} of {total:,} questions"),
        )


def _progress(say: Say, what: str) -> Callable[[int, int], None]:
    return lambda done, total: say(f"learning {what}: step {done} of {total}")


def _report(network: Learned, gathered: Gathered, blend: float, weights: RankerWeights) -> dict[str, Any]:
    held_out = network.about.get("held_out", {})
    return {
        "learned": network.about["learned"],
        "questions": network.about["questions"],
        "answered": network.about["answered"],
        "weights": dict(weights.groups[DEFAULT_GROUP]),
        "groups": sorted(network.groups),
        "prior_blend": blend,
        "candidate_recall": gathered.recall["with_network"],
        "ndcg@10": held_out.get("learned", {}).get("ndcg@10"),
        "ndcg@10_of_the_blend": held_out.get("today", {}).get("ndcg@10"),
    }
