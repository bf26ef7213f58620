"""Values that operators set and every replica follows: the forced mode, the served model and the policies.

With the clock and the audit that these values share, and the exchanges with Redis that keep them current.
"""
