"""Learns the ranker's weights of a run, through the graphs that will be served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.artifact_writer import Parts, write
from export.publish import staging
from model.data.split import Split
from model.evaluation.segments import Segments
from model.ranking.cold_bonus import learn_with_bonus
from model.ranking.gather import Gathered, gather
from model.ranking.learning import LEAST_ANSWERED, Learned, network_prior
from model.ranking.proposals import Proposer
from model.ranking.without_network import MAX_QUESTIONS, learn_from_signals
from service.artifact.artifact import Artifact
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE, PATH, RankerWeights
from service.artifact.scorers.signal_files import COLD
from service.engine.engine import Engine
from service.signals.ranker import Ranker

# Validation questions asked where the catalogue is large and a question takes longer.
QUESTIONS_LARGE = 2000

Say = Callable[[str], None]

_NO_WEIGHT = (
    "the network got no weight: on validation it adds nothing to the other signals, so they alone rank the lists; a "
    "longer training, or more data, may change that"
)
_COLD_STAND = "items without events rank as the items of like content that stand in for them,"


@dataclass(frozen=True)
class LearnedRanker:
    """The weights, and what the report says of them."""

    weights: RankerWeights
    report: Mapping[str, Any]

    def notes(self) -> list[str]:
        """Returns sentences about what was learned, for a reader of the command's output."""
        by = _listed(self.report["weights"])
        if self.report["learned"]:
            before, after = self.report["ndcg@10_of_the_prior"], self.report["ndcg@10"]
            return [
                f"ranker: {by}; NDCG@10 on held-out questions of validation {after:.4f}, by path and dense score alone "
                f"{before:.4f}",
                *([] if self.report["network_counts"] else [_NO_WEIGHT]),
            ]
        answered, bonus = self.report["answered"], self.report.get("cold_bonus")
        why = (
            f"{answered:,} answered questions of validation are too few to learn from, {LEAST_ANSWERED} are needed"
            if answered < LEAST_ANSWERED
            else f"no other weights were better by more than chance on {answered:,} answered questions of validation"
        )
        cold = (
            [] if bonus is None else [f"{_COLD_STAND} {f'with a bonus of {bonus:+g}' if bonus else 'without a bonus'}"]
        )
        return [f"ranker: {why}; lists are ranked by {by}", *cold]


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
        LearningError: A score or a value of a signal is not finite.
    """
    gathered = _gathered(parts, split, out, exclude_history=exclude_history, say=say)
    say("learning the weights")
    network = learn_with_bonus(
        gathered.with_network,
        network_prior(gathered.with_network),
        positive=(PATH, DENSE),
        progress=_progress(say, "the weights"),
    )
    say("learning the weights without the network")
    alone = learn_from_signals(gathered.without_network, _progress(say, "the weights without the network"))
    about = {
        "learned": {"with_network": network.about, "without_network": alone.about, "candidate_recall": gathered.recall}
    }
    groups = {DEFAULT_GROUP: network.weights, **network.groups}
    weights = RankerWeights(tuple(parts.all_signals), groups, alone.weights, about)
    return LearnedRanker(weights, _report(network, gathered, weights))


def _gathered(parts: Parts, split: Split, out: Path, *, exclude_history: bool, say: Say) -> Gathered:
    with staging(out) as folder:
        write(parts, folder, "float32")
        artifact = Artifact.open(folder)
        engine = Engine(artifact, device="cpu")
        signals = Ranker.of(artifact.signals, artifact.ranker)
        return gather(
            split,
            split.valid.sample(MAX_QUESTIONS if parts.dense_candidates else QUESTIONS_LARGE),
            engine,
            Proposer.of(signals),
            Segments(artifact.catalogue, engine.receptive_field),
            exclude_history=exclude_history,
            report=lambda done, total: say(f"gathering candidates: {done:,} of {total:,} questions"),
        )


def _progress(say: Say, what: str) -> Callable[[int, int], None]:
    return lambda done, total: say(f"learning {what}: step {done} of {total}")


def _listed(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())


def _report(network: Learned, gathered: Gathered, weights: RankerWeights) -> dict[str, Any]:
    held_out = network.about.get("held_out", {})
    return {
        "learned": network.about["learned"],
        "questions": network.about["questions"],
        "answered": network.about["answered"],
        "weights": dict(weights.groups[DEFAULT_GROUP]),
        "network_counts": any(of_group.get(name) for of_group in weights.groups.values() for name in (PATH, DENSE)),
        "groups": sorted(network.groups),
        "prior": dict(network.about["prior"]),
        "candidate_recall": gathered.recall["with_network"],
        "ndcg@10": held_out.get("learned", {}).get("ndcg@10"),
        "ndcg@10_of_the_prior": held_out.get("today", {}).get("ndcg@10"),
        **({"cold_bonus": network.about[COLD]["bonus"]} if COLD in network.about else {}),
    }
