"""Everything that talks to Redis: the log, states, shared values, scripts, connections, the embedded server."""
