"""What the graphs and those who feed them agree on. Both sides import it: `export.graphs` writes, `service.engine` feeds."""

from __future__ import annotations

NEVER = -1e30  # score of what must not be chosen; finite, so that no NaN can come of it
