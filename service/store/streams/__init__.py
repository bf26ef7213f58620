"""Streams in Redis that other processes read: what was shown, what came of it, and what waits to be encoded."""
