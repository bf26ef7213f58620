"""Faults of Redis, the model, the process, clients and clocks, injected under load."""
