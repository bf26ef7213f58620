"""Items as paths of tokens: atomic, hierarchical, semantic."""
