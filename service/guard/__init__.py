"""Which rung of the ladder a request starts on.

Forecasts against the deadline, the breaker, the error budgets. Pure: no I/O, the clock is passed in.
"""
