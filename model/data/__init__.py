"""Event logs as tables: importing, checks, times, splits."""
