"""Training methods beside the default one: each a file, a line in `registry.py`, and its settings in `MethodSettings`.

`registry.py` lists the kinds: what changes the training log, what changes a batch, what adds a term to the loss, where
negatives come from, what pretraining learns. Nothing here is part of a served model.
"""
