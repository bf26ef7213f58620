"""Reliability on real service processes: mode changes, error budgets, overload and the runbook."""
