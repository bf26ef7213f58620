"""Training on several processes that torchrun starts: shared batches, agreed ends, and an item table in parts."""
