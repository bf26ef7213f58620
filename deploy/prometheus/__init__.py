"""The alert rules, written by a program from the objectives."""
