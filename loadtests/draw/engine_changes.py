"""What changed of each recorded figure of the engine since it was measured before: the words of the table."""

from __future__ import annotations

from collections.abc import Mapping

# criterion → what a reader should know where the figure of before stands beside the one of now.
CHANGES: Mapping[str, str] = {
    "1 cpu": "its limit is now that of `limit 1 cpu in turns`",
    "1 cpu in loops": "has a limit now, `limit 1 cpu in loops`",
    "2 rps / best of LitServe and BentoML": "its limit is now that of `limit 3 …`",
    "2 rps / FastAPI + thread": "its limit is now that of `limit 3 …`",
    "2 rps / torch eager, batched over the beam": "has a limit that can be reached now, `limit 3 …`",
    "3 constraint on / off": "the same limit, `limit 4 constraint on / off`",
}
