"""Objects that stay for good are out of the way of full collections."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from service.process.settled_heap import settle_heap
kept = []
settle_heap()
later = []
walked = {id(one) for one in gc.get_objects()}
assert id(kept) not in walked and id(later) in walked
"""


def test_what_is_alive_is_not_walked_again_and_what_comes_later_is() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
