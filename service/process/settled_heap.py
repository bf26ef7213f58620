"""What is made while a process starts stays for good: the garbage collector need not look at it again."""

from __future__ import annotations

import gc

# Objects that are made and not given up before the young ones are looked at, and how often the older ones are then.
# Hundreds of requests under way have more live objects than Python's 700, so each request would be looked at over and
# over, and the histories in memory with it.
_YOUNG, _MIDDLE, _OLD = 20_000, 20, 20


def settle_heap() -> None:
    """Takes everything that is alive out of later collections.

    A full collection that walks the modules, the model and the catalogue stops the process for a tenth of a second.
    Call it when all of it is there and nobody waits yet: it makes one such collection itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
