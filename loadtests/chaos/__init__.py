"""Faults, tried on real services under load: `python -m loadtests.chaos all --artifact DIR`."""
