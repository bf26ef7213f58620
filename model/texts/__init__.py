"""Sentence vectors of item texts, and what they say about new items."""
