"""Imports logs that are larger than memory: piece by piece, with the rows that an import in memory has."""
