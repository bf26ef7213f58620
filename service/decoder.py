"""Lists from hidden states, in decoder runs grouped by width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.noise import seed_hash
from export.trie import Trie
from service.errors import ModelError
from service.filters import EVERYTHING, FilterTable
from service.groups import run_groups
from service.jobs import DecodeJob, IntArray, Listed

Run = Callable[[dict[str, Any], int], dict[str, npt.NDArray[Any]]]

EXCLUDED_BUCKETS = (1, 16, 64, 256, 1024)


class Decoder:
    """`run(feeds, rows)` makes one run of the decoder graph and returns its outputs by name.

    Safe to call from several threads.
    """

    def __init__(self, trie: Trie, filters: FilterTable, run: Run) -> None:
        self._trie, self._filters, self._run = trie, filters, run

    def decode(self, jobs: Sequence[DecodeJob]) -> list[Listed | Exception]:
        """A list for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_groups(jobs, lambda job: job.run_width, self._decode)

    def _decode(self, jobs: Sequence[DecodeJob]) -> list[Listed]:
        """One decoder run for jobs of one width."""
        width = jobs[0].run_width
        if any(job.k > width for job in jobs):
            raise ModelError(f"a beam of {width} cannot hold the {max(job.k for job in jobs)} items asked for")
        feeds: dict[str, Any] = {
            "h": np.stack([job.h for job in jobs]),
            "context": np.stack([job.context for job in jobs]),
            "gap_ms": np.array([job.gap_ms for job in jobs], np.int64),
            "inverse_temperature": np.array([j.decoding.inverse_temperature for j in jobs], np.float32),
            "top_p": np.array([job.decoding.nucleus for job in jobs], np.float32),
            "sampled": np.array([job.decoding.sampled for job in jobs], np.float32),
            "seed": np.array([seed_hash(job.seed) for job in jobs], np.int64),
            **self._keep_feeds(width),
            **self._mask_feeds(jobs),
        }
        out = self._run(feeds, len(jobs))
        item, score, log_prob = out["item"], out["score"], out["log_prob"]
        found = []
        for row, job in enumerate(jobs):
            n = min(job.k, int((item[row] >= 0).sum()))
            # A node whose score is not a number is never listed: the list would only look too short.
            if not (np.isfinite(score[row, :n]).all() and np.isfinite(log_prob[row]).all()):
                raise ModelError("the decoder's scores are not finite")
            found.append(Listed(item[row, :n], score[row, :n], log_prob[row, :n]))
        return found

    def _keep_feeds(self, width: int) -> dict[str, IntArray]:
        """How many nodes each level can keep: the width, or all children where there are fewer."""
        feeds, kept = {}, 1
        for level, branching in enumerate(self._trie.branching):
            kept = min(width, kept * (branching + 1))
            feeds[f"keep_{level}"] = np.array([kept], np.int64)
        return feeds

    def _mask_feeds(self, jobs: Sequence[DecodeJob]) -> dict[str, Any]:
        """Filters of the batch stacked without repeats, and every job's closed nodes padded to a bucket."""
        numbers = sorted({job.allowed for job in jobs})
        masks = {number: self._filters.mask(number) for number in numbers}
        closed = [self._trie.closed_nodes(masks[job.allowed].counts, self._known(job.excluded)) for job in jobs]
        most = max((len(nodes) for levels in closed for nodes in levels), default=0)
        bucket = next((b for b in EXCLUDED_BUCKETS if b >= most), most)
        excluded = np.full((len(jobs), self._trie.levels, bucket), -1, np.int64)
        for row, levels in enumerate(closed):
            for level, nodes in enumerate(levels):
                excluded[row, level, : len(nodes)] = nodes
        feeds: dict[str, Any] = {
            "filter": np.array([numbers.index(job.allowed) for job in jobs], np.int64),
            "excluded": excluded,
        }
        if numbers != [EVERYTHING]:
            for level in range(self._trie.levels):
                feeds[f"node_ok_{level}"] = np.stack([masks[number].node_ok[level] for number in numbers])
        return feeds

    def _known(self, items: IntArray) -> IntArray:
        return items[(items >= 0) & (items < self._trie.n_items)]
