"""The metrics: what is counted and timed, and the formats in which it is read."""
