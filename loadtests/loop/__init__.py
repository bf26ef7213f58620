"""Commands behind the criteria of docs/loop.md: joins, off-policy estimates, and what else the loop promises."""
