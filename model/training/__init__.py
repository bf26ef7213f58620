"""From a data set to a run folder.

In the order in which a training uses them (`trainer.py` is the story):

    config.py, defaults.py  the settings, and those that follow from the data
    fitted_parts.py         what is fitted before the network: conditions.py, fit_tokenizer.py
    batches.py, masking.py  sequences → chunks → batches, with masked events for encoders that need them
    batch_loss.py           from a batch to its loss; losses.py has the joint loss
    optimiser.py            AdamW, learning rate, moving average
    validation.py           NDCG@10, by which the best epoch is chosen
    checkpoint.py           progress and checkpoints of a run
    run_folder.py           the files of a run, and how they are read again
    increment/              goes on from a finished run
    reference.py            writes docs/training.md
"""
