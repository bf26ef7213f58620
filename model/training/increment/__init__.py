"""Incremental training: a training that goes on from a finished run, with new events, users and items.

In the order in which an increment uses them (`trainer.py` is the story):

    settings.py       what may be set, and what stays as the run has it
    memory.py         what a training leaves behind for increments: its items, and the Fisher information of its data
    fisher.py         the diagonal of the Fisher information
    joined_data.py    old and new events as one data set, with the items in the order of the run
    start.py          run, memory and data together: what is new in them
    growth.py         context vocabulary, network and memory, grown to new items and values
    new_rows.py       the first vectors of new items
    replay.py         the batches: new events, and a sample of old ones
    consolidation.py  holds weights near their old values, the more the old data needs them
    strength.py       chooses how strongly
"""
