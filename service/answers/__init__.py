"""Lists that were made before, kept for the same question asked again."""
