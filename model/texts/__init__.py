"""Sentence vectors of item texts, and the items that new items resemble."""
