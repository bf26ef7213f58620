"""Peer: Hugging Face `generate` with `prefix_allowed_tokens_fn` on a GPT-2 of the network's size.

    python -m loadtests.peers.transformers_server --artifact DIR --port P [--beams B]
        [--workers N] [--threads T] [--pool P]

The prompt is the history as item tokens, the vocabulary is the tokens of all levels. The weights are random: its speed
is measured, its lists mean nothing. They are items of the catalogue all the same, because the trie allows nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from transformers import GPT2Config, GPT2LMHeadModel  # type: ignore[import-not-found]  # only in its own environment

from loadtests.peers.plain import History, pool, serve
from service.artifact.artifact import Artifact

ARTIFACT, BEAMS, THREADS = "PEER_ARTIFACT", "PEER_BEAMS", "PEER_THREADS"
HISTORY_MAX = 50


class Generator:
    """The model, and the trie as a dictionary: tokens so far → permitted next tokens."""

    def __init__(self, artifact: Artifact, beams: int) -> None:
        network, trie = artifact.network, artifact.trie
        self.vocabulary, self.item_ids, self.beams = artifact.vocabulary, artifact.catalogue.item_ids, beams
        sizes = list(network["code_sizes"])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        nodes = trie.ancestors(trie.item_leaf)  # by item
        codes = np.stack([token[node] for token, node in zip(trie.token, nodes, strict=True)], axis=1) + offsets[:-1]
        self.codes: list[list[int]] = codes.tolist()
        self.item = {tuple(code): item for item, code in enumerate(self.codes)}
        self.allowed: dict[tuple[int, ...], list[int]] = {}
        for code in sorted(self.item):
            for level, token in enumerate(code):
                following = self.allowed.setdefault(code[:level], [])
                if not following or following[-1] != token:
                    following.append(token)
        self.levels = len(sizes)
        self.start = int(offsets[-1])
        torch.manual_seed(0)
        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self.start + 2,
                n_positions=1 + (HISTORY_MAX + 1) * self.levels,
                n_embd=network["d_model"],
                n_layer=network["layers"],
                n_head=network["heads"],
                n_inner=network["d_ff"],
                bos_token_id=self.start,
                eos_token_id=None,
                pad_token_id=self.start + 1,
            )
        ).eval()

    @torch.inference_mode()
    def recommend(self, body: History) -> dict[str, Any]:
        """Returns one list from the raw events; k is at most the number of beams."""
        index = self.vocabulary.item_index
        tokens = [self.start]
        for item in body.items[-HISTORY_MAX:]:
            tokens += self.codes[index[item]]
        prompt = torch.tensor([tokens])
        out = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=self.levels,
            num_beams=self.beams,
            num_return_sequences=body.k,
            do_sample=False,
            use_cache=True,
            prefix_allowed_tokens_fn=lambda _, so_far: self.allowed[tuple(so_far[len(tokens) :].tolist())],
            return_dict_in_generate=True,
            output_scores=True,
        )
        paths = out.sequences[:, len(tokens) :].tolist()
        scores = out.sequences_scores.tolist()
        return {
            "items": [
                {"item_id": self.item_ids[self.item[tuple(path)]], "score": score}
                for path, score in zip(paths, scores, strict=True)
            ]
        }


def create_app() -> FastAPI:
    """Returns the app of a worker process."""
    torch.set_num_threads(int(os.environ[THREADS]))
    generator = Generator(Artifact.open(os.environ[ARTIFACT]), int(os.environ[BEAMS]))
    app = FastAPI(lifespan=pool)

    @app.post("/recommend")
    async def recommend(body: History) -> dict[str, Any]:
        return await asyncio.to_thread(generator.recommend, body)

    return app


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--beams", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pool", type=int, default=0)
    given = parser.parse_args()
    os.environ |= {ARTIFACT: given.artifact, BEAMS: str(given.beams), THREADS: str(given.threads)}
    serve("loadtests.peers.transformers_server:create_app", given.port, given.workers, given.pool)


if __name__ == "__main__":
    main()
