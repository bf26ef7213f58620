"""The reference decoder: loops and dictionaries, one user at a time, straight from the definitions.

The ONNX graph must agree with it. Where the two differ, this one is right until shown otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from model.network.gpt4rec import GPT4Rec
from model.reference.cells import ReferenceCells
from service.artifact.array_types import IntArray
from service.artifact.graphs.noise import gumbel
from service.artifact.graphs.run_sizes import RunSizes
from service.engine.decoding import (
    Decoding,
    SearchSizes,
    joined_width,
    least_candidates,
    search_sizes,
    signals_max,
)

Path = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A kept node of the token tree: its tokens so far, log p(path), and its decoder state [d]."""

    path: Path
    log_prob: float
    state: torch.Tensor


@dataclass(frozen=True)
class ScoredItem:
    """A candidate, with its fused score, log p(path) and q · e."""

    item: int
    score: float
    log_prob: float
    dense: float


@dataclass(frozen=True)
class Scoring:
    """How the parts of the fused score are weighed, and what is added to them.

    Attributes:
        path: Weight of the path's log-probability.
        dense: Weight of the dense score.
        signals: What the user's signals add to each item's score; 0 for other items.
        bias: What signals of items add to each item's score; 0 for other items.
    """

    path: float
    dense: float
    signals: Mapping[int, float] = field(default_factory=dict)
    bias: Mapping[int, float] = field(default_factory=dict)

    def for_request(self, allowed: Sequence[int], *, dense: bool) -> Scoring:
        """Keeps of the user's signals those of allowed items, and of these the largest, whatever their sign."""
        kept = sorted((item for item in allowed if self.signals.get(item)), key=lambda item: -abs(self.signals[item]))
        return replace(self, signals={item: self.signals[item] for item in kept[: signals_max(dense=dense)]})

    def added(self, item: int) -> float:
        """Returns what is added to an item's score."""
        return self.signals.get(item, 0.0) + self.bias.get(item, 0.0)


class ReferenceDecoder:
    """Constrained decoding over the model's own codes.

    The candidates of a list are those of the beam, and the best by what is known of their score without the path: of
    the whole catalogue with `dense`, of the best cells and the items with signals with `cells`, else of the items with
    signals. A sampled list is drawn from all of them.
    """

    def __init__(
        self,
        model: GPT4Rec,
        hashes: IntArray,
        *,
        dense: bool,
        measured: RunSizes | None = None,
        cells: ReferenceCells | None = None,
    ) -> None:
        """Reads the codes and the item table of a network.

        Args:
            model: The network.
            hashes: [items] of their ids (`service.artifact.graphs.noise.id_hashes`), from which the noise follows.
            dense: Whether every item may join the beam's, or only items with signals.
            measured: Which runs are narrower than planned; None: no run.
            cells: The cells of which the best may join as well; None: no cells.
        """
        self.model, self.hashes, self.dense, self.cells = model.eval(), hashes, dense, cells
        self.measured = measured or RunSizes()
        self.codes: list[Path] = [tuple(row) for row in model.codes.tolist()]
        self.item = {code: item for item, code in enumerate(self.codes)}
        self.table = model.item_table().detach()
        self.every_path = {code[:n] for code in self.codes for n in range(1, len(code) + 1)}
        self.children: dict[Path, list[Path]] = {}
        for path in sorted(self.every_path):
            self.children.setdefault(path[:-1], []).append(path)

    def decode(
        self,
        q: torch.Tensor,
        decoding: Decoding,
        k: int,
        width: int,
        allowed: Sequence[int],
        seed: int,
        scoring: Scoring,
        inside: set[int] | None = None,
        filtered: Sequence[int] | None = None,
    ) -> list[ScoredItem]:
        """Decodes a list for one query.

        Args:
            q: [d] query.
            decoding: The decoding strategy.
            k: Largest length of the list.
            width: Beam width.
            allowed: Item indices that the list may contain.
            seed: Seed of the Gumbel noise.
            scoring: Weights and signals of the fused score.
            inside: Candidates that a sampled list draws first; None: the nucleus.
            filtered: Item indices that the filter allows, excluded or not; None: those allowed.
        """
        scored = self.candidates(q, decoding, k, width, allowed, scoring, filtered)
        if not decoding.sampled:
            return sorted(scored, key=lambda candidate: -candidate.score)[:k]
        log_probs = sampling_log_probs(scored, decoding)
        inside = nucleus(log_probs, decoding.nucleus) if inside is None else inside
        noise = dict(enumerate(gumbel(self.hashes, seed)))
        order = sorted(log_probs, key=lambda item: (item in inside, log_probs[item] + noise[item]), reverse=True)
        by_item = {candidate.item: candidate for candidate in scored}
        return [by_item[item] for item in order[:k]]

    @torch.no_grad()
    def candidates(
        self,
        q: torch.Tensor,
        decoding: Decoding,
        k: int,
        width: int,
        allowed: Sequence[int],
        scoring: Scoring,
        filtered: Sequence[int] | None = None,
    ) -> list[ScoredItem]:
        """Returns all candidates with fused scores, in no particular order."""
        scoring = scoring.for_request(allowed, dense=self.dense)
        sizes = search_sizes(
            width, joined_width(k, width, sampled=decoding.sampled), sampled=decoding.sampled,
            dense=self.dense or self.cells is not None, least=least_candidates(decoding, k, width),
            children=self.most_children, measured=self.measured,
        )  # fmt: skip
        kept = self._beam(q, sizes, allowed)
        beam_paths = {node.path for node in kept}
        best = self._promising(q, sizes.joined, allowed, scoring, allowed if filtered is None else filtered)
        leaves = [self._leaf(q, item) for item in best]
        return self._scored([*kept, *(node for node in leaves if node.path not in beam_paths)], q, scoring)

    @property
    def most_children(self) -> int:
        """The most children that a node of the last level but one has."""
        return max(len(children) for path, children in self.children.items() if len(path) + 1 == len(self.codes[0]))

    @torch.no_grad()
    def ranked(self, q: torch.Tensor, items: Sequence[int], scoring: Scoring) -> list[ScoredItem]:
        """Ranks given items by the fused score, best first."""
        scored = self._scored([self._leaf(q, item) for item in items], q, scoring) if items else []
        return sorted(scored, key=lambda one: -one.score)

    def _beam(self, q: torch.Tensor, sizes: SearchSizes, allowed: Sequence[int]) -> list[Node]:
        """Returns the most probable leaves."""
        open_paths = self._open_paths(allowed)
        kept = [Node((), 0.0, self.model.begin(q))]
        for level in range(self.model.config.levels):
            children = []
            for node in kept:
                token = self.token_log_probs(level, node)
                children += [
                    Node(path, node.log_prob + token[path[-1]], node.state)
                    for path in self.children[node.path]
                    if path in open_paths
                ]
            children.sort(key=lambda node: -node.log_prob)
            last = level + 1 == self.model.config.levels
            kept = [self._advanced(level, node) for node in children[: sizes.listed if last else sizes.width]]
        return kept

    def _promising(
        self, q: torch.Tensor, n: int, allowed: Sequence[int], scoring: Scoring, filtered: Sequence[int]
    ) -> list[int]:
        """Returns the n allowed items whose scores promise most while q · e stands for the path as well."""
        known = list(allowed if self.dense else scoring.signals)
        weight = scoring.path + scoring.dense
        if self.cells is not None:
            known += self.cells.best(q, weight, scoring.bias, filtered, set(allowed) - set(known), n)
        return sorted(known, key=lambda item: -(weight * self._dense(q, item) + scoring.added(item)))[:n]

    def _dense(self, q: torch.Tensor, item: int) -> float:
        return float(self.table[item].double() @ q.double())

    def _leaf(self, q: torch.Tensor, item: int) -> Node:
        """Returns the leaf of an item, found along its own tokens."""
        node = Node((), 0.0, self.model.begin(q))
        for level, token in enumerate(self.codes[item]):
            log_prob = node.log_prob + self.token_log_probs(level, node)[token]
            node = self._advanced(level, Node((*node.path, token), log_prob, node.state))
        return node

    def _open_paths(self, allowed: Sequence[int]) -> set[Path]:
        """Returns the paths to allowed items and all their prefixes."""
        if len(allowed) == len(self.codes):
            return self.every_path
        return {self.codes[item][:n] for item in allowed for n in range(1, len(self.codes[item]) + 1)}

    def token_log_probs(self, level: int, node: Node) -> list[float]:
        """Returns log p(token | q, path so far) for every token of the level."""
        logits = self.model.level_logits(level, node.state).double()
        return [float(x) for x in torch.log_softmax(logits, dim=-1)]

    def _advanced(self, level: int, node: Node) -> Node:
        """Returns the node with its own decoder state instead of its parent's; leaves keep their parent's."""
        if level + 1 == self.model.config.levels:
            return node
        return replace(node, state=self.model.step(level, node.state, torch.tensor(node.path[-1])))

    def _scored(self, kept: list[Node], q: torch.Tensor, scoring: Scoring) -> list[ScoredItem]:
        """Returns the items of the nodes with fused scores, in the order of the nodes."""
        items = [self.item[node.path] for node in kept]
        dense = [self._dense(q, item) for item in items]
        offset = log_sum_exp([node.log_prob for node in kept]) - log_sum_exp(dense)
        scored = []
        for item, node, d in zip(items, kept, dense, strict=True):
            score = scoring.path * node.log_prob + scoring.dense * (d + offset) + scoring.added(item)
            scored.append(ScoredItem(item, score, node.log_prob, d))
        return scored


def sampling_log_probs(scored: list[ScoredItem], decoding: Decoding) -> dict[int, float]:
    """Returns {item: log-probability of being drawn first}, before the nucleus is taken."""
    return normalise({candidate.item: candidate.score * decoding.inverse_temperature for candidate in scored})


def log_propensities(log_probs: dict[int, float], inside: set[int], drawn: Sequence[int]) -> list[float]:
    """Returns the log-probability of each item drawn, given those drawn before it, one draw after the other.

    Args:
        log_probs: Log-weights of all candidates.
        inside: Those in the nucleus, which are drawn first.
        drawn: The items, in the order of the draw.
    """
    left, found = dict(log_probs), []
    for item in drawn:
        same_part = [weight for other, weight in left.items() if (other in inside) == (item in inside)]
        found.append(left.pop(item) - log_sum_exp(same_part))
    return found


def log_sum_exp(values: Sequence[float]) -> float:
    """Returns log Σ exp(value), without overflow."""
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))


def normalise(log_weights: dict[int, float]) -> dict[int, float]:
    """Returns the log-probabilities of log-weights."""
    total = log_sum_exp(list(log_weights.values()))
    return {p: w - total for p, w in log_weights.items()}


def nucleus(log_probs: dict[int, float], top_p: float) -> set[int]:
    """Returns the smallest set of most probable items whose mass reaches top_p (Holtzman et al., 2020).

    Items that tie with its last one belong to it too.
    """
    mass, least = 0.0, math.inf
    for value in sorted(log_probs.values(), reverse=True):
        if mass >= top_p:
            break
        mass, least = mass + math.exp(value), value
    return {p for p, value in log_probs.items() if value >= least}
