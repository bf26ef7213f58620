"""Tokenizers, which turn items into paths of tokens: atomic, hierarchical, semantic."""
