"""Signals: what else than the network says how well an item fits a user, and the weights that make one score of all.

Needs numpy only. A user signal is a pure function of a user's history; an item signal is the same for everybody.
"""
