"""The reference decoder: loops and dictionaries, one user at a time, straight from the definitions.

The ONNX graph must agree with it. Where the two differ, this one is right until shown otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from model.network.gpt4rec import GPT4Rec
from service.artifact.noise import gumbel, node_hash
from service.engine.decoding import Decoding, dense_width

Path = tuple[int, ...]
Key = TypeVar("Key", Path, int)


@dataclass(frozen=True)
class Node:
    """A kept node of the token tree.

    Attributes:
        path: Tokens so far.
        log_prob: log p(path).
        phi: Logarithm of the distribution that the path is sampled from.
        perturbed: Perturbed score G, phi with Gumbel noise.
        outside: Whether the path left the nucleus.
        state: [d] decoder state.
    """

    path: Path
    log_prob: float
    phi: float
    perturbed: float
    outside: bool
    state: torch.Tensor

    def key(self, sampled: bool) -> tuple[bool, float]:
        """Returns the sort key of the beam, largest first: sampled nodes outside the nucleus come last."""
        return (not self.outside, self.perturbed) if sampled else (True, self.log_prob)


@dataclass(frozen=True)
class ScoredItem:
    """An item of a list, with its blended score and log p(path)."""

    item: int
    score: float
    log_prob: float


class ReferenceDecoder:
    """Constrained decoding over the model's own codes.

    With `dense` the best items by q · e join the candidates of the beam, and a sampled list is drawn from both by the
    blended score instead of by sampling paths.
    """

    def __init__(self, model: GPT4Rec, blend: float, *, dense: bool = False) -> None:
        self.model, self.blend, self.dense = model.eval(), blend, dense
        self.codes: list[Path] = [tuple(row) for row in model.codes.tolist()]
        self.item = {code: item for item, code in enumerate(self.codes)}
        self.table = model.item_table().detach()
        # Nodes are numbered per level in sorted order, breadth first; the noise is a hash of that number.
        self.number = [
            {path: n for n, path in enumerate(sorted({code[: level + 1] for code in self.codes}))}
            for level in range(model.config.levels)
        ]
        self.hashes = [node_hash(level, len(paths)) for level, paths in enumerate(self.number)]
        self.children: dict[Path, list[Path]] = {}
        for path in sorted(path for level in self.number for path in level):
            self.children.setdefault(path[:-1], []).append(path)
        self.every_path = {path for level in self.number for path in level}

    @torch.no_grad()
    def decode(
        self, q: torch.Tensor, decoding: Decoding, k: int, width: int, allowed: Sequence[int], seed: int
    ) -> list[ScoredItem]:
        """Decodes a list for one query.

        Args:
            q: [d] query.
            decoding: The decoding strategy.
            k: Largest length of the list.
            width: Beam width.
            allowed: Item indices that the list may contain.
            seed: Seed of the Gumbel noise.
        """
        if not self.dense:
            scored = self._scored(self._beam(q, decoding, width, allowed, seed), q)
            return (scored if decoding.sampled else ranked(scored))[:k]
        scored = self.candidates(q, decoding, k, width, allowed)
        if not decoding.sampled:
            return ranked(scored)[:k]
        log_probs = sampling_log_probs(scored, decoding)
        inside = nucleus(log_probs, decoding.nucleus)
        noise = dict(enumerate(gumbel(node_hash(self.model.config.levels, len(self.codes)), seed)))
        order = sorted(log_probs, key=lambda item: (item in inside, log_probs[item] + noise[item]), reverse=True)
        by_item = {candidate.item: candidate for candidate in scored}
        return [by_item[item] for item in order[:k]]

    @torch.no_grad()
    def candidates(
        self, q: torch.Tensor, decoding: Decoding, k: int, width: int, allowed: Sequence[int]
    ) -> list[ScoredItem]:
        """Returns the candidates of the beam and of the dense score, with blended scores, in no particular order."""
        kept = self._beam(q, Decoding("beam"), width, allowed, seed=0)
        beam_paths = {node.path for node in kept}
        dense = self._dense_candidates(q, dense_width(k, width, sampled=decoding.sampled), allowed)
        return self._scored([*kept, *(node for node in dense if node.path not in beam_paths)], q)

    def _beam(self, q: torch.Tensor, decoding: Decoding, width: int, allowed: Sequence[int], seed: int) -> list[Node]:
        """Returns the kept leaves in order: the most probable ones, or the drawn ones of a sampled decoding."""
        open_paths = self._open_paths(allowed)
        kept = [Node((), 0.0, 0.0, 0.0, False, self.model.begin(q))]
        for level in range(self.model.config.levels):
            children = [c for node in kept for c in self._expand(level, node, decoding, open_paths, seed)]
            children.sort(key=lambda node: node.key(decoding.sampled), reverse=True)
            kept = [self._advanced(level, node) for node in children[:width]]
        return kept

    def _dense_candidates(self, q: torch.Tensor, n: int, allowed: Sequence[int]) -> list[Node]:
        """Returns the leaves of the n allowed items with the largest q · e."""
        best = sorted(allowed, key=lambda item: -float(self.table[item].double() @ q.double()))[:n]
        nodes = []
        for item in best:
            node = Node((), 0.0, 0.0, 0.0, False, self.model.begin(q))
            for level, token in enumerate(self.codes[item]):
                log_prob = node.log_prob + self.token_log_probs(level, node)[token]
                node = self._advanced(level, replace(node, path=(*node.path, token), log_prob=log_prob))
            nodes.append(node)
        return nodes

    def _open_paths(self, allowed: Sequence[int]) -> set[Path]:
        """Returns the paths to allowed items and all their prefixes."""
        if len(allowed) == len(self.codes):
            return self.every_path
        return {self.codes[item][:n] for item in allowed for n in range(1, len(self.codes[item]) + 1)}

    def token_log_probs(self, level: int, node: Node) -> list[float]:
        """Returns log p(token | q, path so far) for every token of the level."""
        logits = self.model.level_logits(level, node.state).double()
        return [float(x) for x in torch.log_softmax(logits, dim=-1)]

    def _expand(self, level: int, node: Node, decoding: Decoding, open_paths: set[Path], seed: int) -> list[Node]:
        paths = [p for p in self.children[node.path] if p in open_paths]
        token = self.token_log_probs(level, node)
        tempered = {p: token[p[-1]] * decoding.inverse_temperature for p in paths}
        over_all = normalise(tempered)
        inside = nucleus(over_all, decoding.nucleus)
        over_nucleus = normalise({p: tempered[p] for p in inside})
        phi = {p: node.phi + (over_nucleus[p] if p in inside else over_all[p]) for p in paths}
        noise = gumbel(self.hashes[level][[self.number[level][p] for p in paths]], seed)
        noisy = {p: phi[p] + float(g) for p, g in zip(paths, noise, strict=True)}
        top = max(noisy[p] for p in inside)
        return [
            Node(
                p,
                node.log_prob + token[p[-1]],
                phi[p],
                condition(noisy[p], top, node.perturbed) if p in inside else noisy[p],
                node.outside or p not in inside,
                node.state,
            )
            for p in paths
        ]

    def _advanced(self, level: int, node: Node) -> Node:
        """Returns the node with its own decoder state instead of its parent's; leaves keep their parent's."""
        if level + 1 == self.model.config.levels:
            return node
        return replace(node, state=self.model.step(level, node.state, torch.tensor(node.path[-1])))

    def _scored(self, kept: list[Node], q: torch.Tensor) -> list[ScoredItem]:
        """Returns the items of the nodes with blended scores, in the order of the nodes."""
        items = [self.item[node.path] for node in kept]
        dense = [float(self.table[item].double() @ q.double()) for item in items]
        mass = log_sum_exp([node.log_prob for node in kept])
        spread = log_sum_exp(dense)
        return [
            ScoredItem(item, (1 - self.blend) * node.log_prob + self.blend * (d - spread + mass), node.log_prob)
            for item, node, d in zip(items, kept, dense, strict=True)
        ]

    @torch.no_grad()
    def item_probabilities(self, q: torch.Tensor, decoding: Decoding, allowed: Sequence[int]) -> dict[int, float]:
        """Returns the exact probability with which each allowed item is drawn first when paths are sampled.

        It is the product of the distributions that each level draws from. Items outside the nucleus are left out.
        """
        open_paths = self._open_paths(allowed)
        kept = [Node((), 0.0, 0.0, 0.0, False, self.model.begin(q))]
        for level in range(self.model.config.levels):
            kept = [
                self._advanced(level, child)
                for node in kept
                for child in self._expand(level, node, decoding, open_paths, seed=0)
                if not child.outside
            ]
        return {self.item[node.path]: math.exp(node.phi) for node in kept}


def ranked(scored: list[ScoredItem]) -> list[ScoredItem]:
    """Returns the items by descending score; ties keep their order."""
    return sorted(scored, key=lambda item: -item.score)


def sampling_log_probs(scored: list[ScoredItem], decoding: Decoding) -> dict[int, float]:
    """Returns {item: log-probability of being drawn first}, before the nucleus is taken."""
    return normalise({candidate.item: candidate.score * decoding.inverse_temperature for candidate in scored})


def log_sum_exp(values: Sequence[float]) -> float:
    """Returns log Σ exp(value), without overflow."""
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))


def normalise(log_weights: dict[Key, float]) -> dict[Key, float]:
    """Returns the log-probabilities of log-weights."""
    total = log_sum_exp(list(log_weights.values()))
    return {p: w - total for p, w in log_weights.items()}


def nucleus(log_probs: dict[Key, float], top_p: float) -> set[Key]:
    """Returns the smallest set of most probable members whose mass reaches top_p (Holtzman et al., 2020).

    Members that tie with its last one belong to it too.
    """
    mass, least = 0.0, math.inf
    for value in sorted(log_probs.values(), reverse=True):
        if mass >= top_p:
            break
        mass, least = mass + math.exp(value), value
    return {p for p, value in log_probs.items() if value >= least}


def condition(noisy: float, top: float, parent: float) -> float:
    """Returns −log(exp(−parent) − exp(−top) + exp(−noisy)) in the stable form of Kool et al. (2019), appendix B.3."""
    gap = 1.0 - math.exp(min(noisy - top, 0.0))
    v = parent - noisy + (math.log(gap) if gap > 1e-30 else math.log(1e-30))
    return parent - max(0.0, v) - math.log1p(math.exp(-abs(v)))
