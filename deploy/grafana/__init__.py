"""The dashboard, written by a program from the metrics that exist."""
