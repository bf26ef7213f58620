"""The alert rules, generated from the objectives."""
