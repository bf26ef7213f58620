"""Decides the rung of the ladder that a request starts on: forecasts against the deadline, breaker, error budgets.

Pure: no I/O, the clock is passed in.
"""
