"""From a data set to a run folder: configuration, batches, losses, the trainer."""
