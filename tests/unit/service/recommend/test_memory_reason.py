"""What was read from memory, in the words of a reason."""

from __future__ import annotations

import numpy as np

from service.engine.interface import MemoryRead
from service.recommend.memory_reason import memory_reason

TIMES = [10, 20, 30, 40, 50]


def test_the_event_and_the_session_of_which_most_was_read_may_be_two() -> None:
    """Of five events the newest four are shown."""
    events = np.array([0.125, 0.125, 0.25, 0.1875], np.float32)
    read = MemoryRead(events, None, np.array([7, 8, 9, 8]), {"hours": 0.5, "days": 0.25, "month": 0.25})
    found = memory_reason(read, np.arange(5), TIMES, lambda place: {"place": place})
    assert found["event"] == {"place": 3, "share": 0.25}
    assert found["session"] == {"share": 0.3125, "events": 2, "from_ms": 30, "to_ms": 50}
    assert (found["slots"], found["horizons"]) == (None, {"hours": 0.5, "days": 0.25, "month": 0.25})
    assert found["earlier"] == 0.3125


def test_of_a_memory_that_holds_no_event_none_is_named() -> None:
    read = MemoryRead(np.zeros(2, np.float32), np.array([0.75, 0.25], np.float32))
    found = memory_reason(read, np.arange(2), TIMES, lambda place: {"place": place})
    assert found == {"event": None, "session": None, "slots": [0.75, 0.25], "horizons": None, "earlier": 1.0}
