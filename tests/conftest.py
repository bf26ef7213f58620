"""Fixtures shared by all tests."""

import model  # noqa: F401 - first of all: it sets how OpenMP threads wait, before torch is loaded
from tests.support.valkey import shared_valkey, valkey

__all__ = ["shared_valkey", "valkey"]
