"""Stock and new items while a model is served: the updates file, and what it changes in the engine's tables."""
