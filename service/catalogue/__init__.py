"""Stock and new items while a model is served.

The file that is followed, and what it changes in the engine's tables.
"""
