"""Tests.

`unit` mirrors the rooms, `contract` asks the HTTP contract, `integration` runs real processes, `support` helps them.
"""
