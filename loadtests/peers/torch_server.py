"""Peer: the notebook way. FastAPI, torch eager, and a beam search written in Python over the trie of the artefact.

    python -m loadtests.peers.torch_server --artifact DIR --run RUN --port P --beam one-by-one|batched
        [--workers N] [--threads T] [--pool P]

Children are listed, scored and sorted in Python. `one-by-one` calls the network for one hypothesis at a time, as a
notebook does; `batched` calls it once a level, for the whole beam. Both search as wide as the manifest of the artefact
says, join the best items of the catalogue where the graphs do, rank by the same signals, and so give the same lists.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from safetensors.torch import load_file

from loadtests.peers.plain import History, pool, serve
from loadtests.peers.sizes import sizes_of
from model.network.config import NetworkConfig
from model.network.gpt4rec import GPT4Rec
from model.reference.closed_nodes import closed_nodes
from service.artifact.artifact import Artifact
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE, PATH
from service.engine.decoding import SearchSizes
from service.signals.ranker import Ranker as Signals
from service.signals.user_history import UserHistory

ARTIFACT, RUN, CALLS, THREADS = "PEER_ARTIFACT", "PEER_RUN", "PEER_CALLS", "PEER_THREADS"


class Notebook:
    """The trained network, the trie as Python lists, and the search."""

    def __init__(self, artifact: Artifact, run: Path, *, batched: bool) -> None:
        about = json.loads((run / "run.json").read_text("utf-8"))
        weights = load_file(run / "best.safetensors")
        self.model = GPT4Rec(NetworkConfig.from_json(about["network"]), weights["codes"])
        self.model.load_state_dict(weights)
        self.model.eval()
        self.artifact, self.trie, self.batched = artifact, artifact.trie, batched
        if not np.array_equal(self._paths(), weights["codes"].numpy()[self.trie.leaf_item]):
            raise ValueError(f"{artifact.folder} was not exported from the run {run}")
        self.dense = bool(artifact.manifest.get("dense_candidates"))
        ranked_by = artifact.ranker.groups[DEFAULT_GROUP]
        self.weights = ranked_by.get(PATH, 0.0), ranked_by.get(DENSE, 0.0)
        self.signals = Signals.of(artifact.signals, artifact.ranker)
        self.bias = torch.from_numpy(self.signals.bias())
        self.table = self.model.item_table().detach()
        self.first_child = [first.tolist() for first in self.trie.first_child]
        self.token = [token.tolist() for token in self.trie.token]
        self.leaf_item = self.trie.leaf_item.tolist()
        self.counts = self.trie.node_counts(np.ones(self.trie.n_items, np.bool_))

    @torch.inference_mode()
    def recommend(self, body: History) -> dict[str, Any]:
        """Returns one list from the raw events."""
        vocabulary = self.artifact.vocabulary
        events = vocabulary.events(body.items, body.types, body.times_ms)
        started = vocabulary.with_start(events)
        item, type_, time_ms = (torch.from_numpy(a)[None] for a in (started.item, started.type, started.time_ms))
        h = self.model(item, type_, time_ms, self.table)[0, -1]
        gap = vocabulary.context.gap(body.times_ms[-1], int(time.time() * 1000.0))
        q = self.model.query(h[None], torch.from_numpy(vocabulary.context.encode({}))[None], torch.tensor([gap]))[0]
        sizes, added = sizes_of(self.artifact, body.k), self._added(events.item)
        closed = [set(nodes.tolist()) for nodes in closed_nodes(self.trie, self.counts, np.unique(events.item))]
        beam = [(score, self.leaf_item[leaf]) for score, leaf in self._search(q, closed, sizes)]
        if self.dense:
            beam += self._dense(q, events.item, sizes.joined, {item for _, item in beam}, added)
        ranked = self._rank(q, beam, added)[: body.k]
        ids = self.artifact.catalogue.item_ids
        return {"items": [{"item_id": ids[item], "score": score} for item, score in ranked]}

    def _added(self, items: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor:
        """Returns what the signals of the user and of the items add to the score of each item."""
        added, values = self.bias.clone(), self.signals.user(UserHistory.of_items(items))
        added[torch.from_numpy(values.items)] += torch.from_numpy(values.values)
        return added

    def _search(self, q: torch.Tensor, closed: list[set[int]], sizes: SearchSizes) -> list[tuple[float, int]]:
        """Returns (log p, leaf) of the best permitted leaves."""
        beam = [(0.0, 0)]
        state = self.model.begin(q[None])
        for level in range(self.trie.levels):
            log_p = self._log_p(level, state)
            first, token, shut = self.first_child[level], self.token[level], closed[level]
            candidates = [
                (so_far + log_p[row][token[child]], child, row)
                for row, (so_far, node) in enumerate(beam)
                for child in range(first[node], first[node + 1])
                if child not in shut
            ]
            candidates.sort(reverse=True)
            del candidates[sizes.width if level + 1 < self.trie.levels else sizes.listed :]
            beam = [(score, child) for score, child, _ in candidates]
            if level + 1 < self.trie.levels:
                state = self._advanced(level, state, [row for _, _, row in candidates], [token[c] for _, c in beam])
        return beam

    def _log_p(self, level: int, state: torch.Tensor) -> list[list[float]]:
        """Returns log-probabilities of the level's tokens for every hypothesis."""
        if self.batched:
            rows: list[list[float]] = torch.log_softmax(self.model.level_logits(level, state), dim=-1).tolist()
            return rows
        return [torch.log_softmax(self.model.level_logits(level, one), dim=-1).tolist() for one in state]

    def _advanced(self, level: int, state: torch.Tensor, parents: list[int], tokens: list[int]) -> torch.Tensor:
        """Returns the states of the kept hypotheses after their tokens."""
        if self.batched:
            return self.model.step(level, state[parents], torch.tensor(tokens))
        pairs = zip(parents, tokens, strict=True)
        return torch.stack([self.model.step(level, state[row], torch.tensor(token)) for row, token in pairs])

    def _dense(
        self, q: torch.Tensor, seen: np.ndarray[Any, np.dtype[np.int64]], n: int, have: set[int], added: torch.Tensor
    ) -> list[tuple[float, int]]:
        """Returns (log p, item) of the `n` permitted items that promise most without a path, less those of the beam."""
        score = sum(self.weights) * (self.table[: self.trie.n_items] @ q) + added
        score[torch.from_numpy(seen[seen < self.trie.n_items])] = -torch.inf
        items = [item for item in torch.topk(score, n).indices.tolist() if item not in have]
        groups = [items] if self.batched else [[item] for item in items]
        return [pair for group in groups if group for pair in zip(self._path(q, group), group, strict=True)]

    def _path(self, q: torch.Tensor, items: list[int]) -> list[float]:
        """Returns log p of the items' own paths, token by token."""
        tokens = self.model.codes[items]
        state = self.model.begin(q[None]).expand(len(items), -1)
        log_p = torch.zeros(len(items))
        for level in range(self.trie.levels):
            all_tokens = torch.log_softmax(self.model.level_logits(level, state), dim=-1)
            log_p = log_p + all_tokens.gather(1, tokens[:, level : level + 1])[:, 0]
            if level + 1 < self.trie.levels:
                state = self.model.step(level, state, tokens[:, level])
        paths: list[float] = log_p.tolist()
        return paths

    def _rank(self, q: torch.Tensor, beam: list[tuple[float, int]], added: torch.Tensor) -> list[tuple[int, float]]:
        """Ranks candidates by the fused score."""
        items = [item for _, item in beam]
        path = torch.tensor([score for score, _ in beam])
        dense = self.table[items] @ q
        dense = dense - torch.logsumexp(dense, 0) + torch.logsumexp(path, 0)
        scores = (self.weights[0] * path + self.weights[1] * dense + added[items]).tolist()
        return sorted(zip(items, scores, strict=True), key=lambda pair: -pair[1])

    def _paths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the token paths [N, K] of the leaves, in their order."""
        nodes = self.trie.ancestors(np.arange(self.trie.n_items))
        return np.stack([token[node] for token, node in zip(self.trie.token, nodes, strict=True)], axis=1)


def create_app() -> FastAPI:
    """Returns the app of a worker process."""
    torch.set_num_threads(int(os.environ[THREADS]))
    notebook = Notebook(
        Artifact.open(os.environ[ARTIFACT]), Path(os.environ[RUN]), batched=os.environ[CALLS] == "batched"
    )
    app = FastAPI(lifespan=pool)

    @app.post("/recommend")
    async def recommend(body: History) -> dict[str, Any]:
        return await asyncio.to_thread(notebook.recommend, body)

    return app


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--beam", choices=("one-by-one", "batched"), required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pool", type=int, default=0)
    given = parser.parse_args()
    os.environ |= {ARTIFACT: given.artifact, RUN: given.run, CALLS: given.beam, THREADS: str(given.threads)}
    serve("loadtests.peers.torch_server:create_app", given.port, given.workers, given.pool)


if __name__ == "__main__":
    main()
