"""Generators of clients, run on the real OpenAPI document: their code must have every operation and take every example.

The checks of Python code run in the environment of the generators, so they import nothing of this repository.
"""
