"""Measurements of speed, quality and reliability, and the documents drawn from their figures."""
