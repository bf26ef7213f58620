"""From a data set to a run folder.

In the order in which a training uses them (`trainer.py` is the story):

    config.py, defaults.py  the settings, and those that follow from the data
    run_folder.py           what is written, and how it is read again
    conditions.py           user features, scenes, control codes and gaps of training positions
    fit_tokenizer.py        item ids → token paths
    batches.py, masking.py  sequences → chunks → batches, with masked events for encoders that need them
    losses.py               the joint loss
    validation.py           NDCG by which epochs are chosen
    reference.py            writes docs/training.md
"""
