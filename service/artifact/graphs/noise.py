"""Repeatable noise for sampling: a hash of (seed, item id) in modular arithmetic.

The noise follows from the id of an item, not from its place in a catalogue: replicas that learned of new items in
another order, and catalogues that grew, draw the same list from the same scores.

x → x⁵ mod p is a permutation for p = 2³¹ − 1 (5 does not divide p − 1), and every product stays below 2⁶², so the
rounds run in int64 Mul and Mod, which onnxruntime has on every device. They are the rounds of the block cipher MiMC
(Albrecht et al., 2016), but only a few of them: the purpose is noise, not secrecy. The part that does not depend on the
request (the item) is hashed once for each catalogue; the graph mixes in the seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import IntArray
from service.artifact.items.columns import Texts

PRIME = 2**31 - 1
ROUND_KEYS = (715_827_883, 1_431_655_765)
# Base of the polynomial over the bytes of an id.
ID_BASE = 1_103_515_245


def fifth_power(x: Any) -> Any:
    """Returns x⁵ mod p for 0 ≤ x < p."""
    square = x * x % PRIME
    fourth = square * square % PRIME
    return fourth * x % PRIME


def item_hash(items: IntArray) -> IntArray:
    """Returns the hashes of numbers, of any shape, in the same order."""
    x = items % PRIME
    for key in ROUND_KEYS:
        x = (fifth_power(x) + key) % PRIME
    return np.asarray(x)


def id_hashes(ids: Texts) -> IntArray:
    """Returns [n] the hashes of item ids: the part that does not depend on the request.

    A polynomial over the bytes of the id (Karp and Rabin, 1987) modulo p, mixed like an index. Of a million ids a few
    hundred share their noise with another one.
    """
    lengths = np.diff(ids.offsets)
    x = np.asarray(lengths + 1, np.int64)
    left = np.arange(len(lengths))
    for at in range(int(lengths.max(initial=0))):
        left = left[lengths.take(left) > at]
        byte = ids.data.take(ids.offsets.take(left) + at).astype(np.int64)
        x[left] = (x.take(left) * ID_BASE + byte + 1) % PRIME
    return item_hash(x)


def seed_hash(seed: int) -> int:
    """Returns the hash, 0 … p − 1, of a seed of any size (int64 and beyond)."""
    low, high = seed % PRIME, (seed // PRIME) % PRIME
    return int(fifth_power((fifth_power(low) + high + ROUND_KEYS[0]) % PRIME))


def uniform(hashes: IntArray, seed: int) -> npt.NDArray[np.float64]:
    """Returns numbers in (0, 1) for hashed items, of the same shape: the reference for the graph."""
    x = fifth_power((hashes + seed_hash(seed)) % PRIME)
    x = fifth_power((x + ROUND_KEYS[1]) % PRIME)
    # float32 can tell 23 bits apart from 1; the graph drops the same ones.
    return (np.asarray(x // 2**8, np.float64) + 0.5) / 2**23


def gumbel(hashes: IntArray, seed: int) -> npt.NDArray[np.float64]:
    """Returns −log(−log u) for hashed items: standard Gumbel noise."""
    return np.asarray(-np.log(-np.log(uniform(hashes, seed))))
