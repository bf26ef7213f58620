"""Readers of `gpt4rec data import`: a module for each format, and `side_tables` for items, users and attributes."""
