"""Fixtures shared by all tests."""

from tests.valkey import shared_valkey, valkey

__all__ = ["shared_valkey", "valkey"]
