"""What is made while a process starts stays for good: the garbage collector need not look at it again."""

from __future__ import annotations

import gc


def settle_heap() -> None:
    """Takes everything that is alive out of later collections.

    A full collection that walks the modules, the model and the catalogue stops the process for a tenth of a second.
    Call it when all of it is there and nobody waits yet: it makes one such collection itself.
    """
    gc.collect()
    gc.freeze()
