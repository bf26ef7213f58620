"""The log of what was shown and what came of it: reading it, joining it, and what other policies would have earned.

log_schema.py      the columns of exposures, events, merges and erasures; entries of the streams as rows
log_folder.py      the folder of Parquet files: writing one whole, reading a time range
attribution.py     which list an event belongs to; start here
partitions.py      the same for a log of any size, subjects in parts
made_traffic.py    clicks that look made
outcomes.py        what each position of each list earned
grouped.py         rates of groups of lists, with intervals clustered by subject
training_data.py   what `gpt4rec train` reads of it
online_report.py   `gpt4rec report online`: model, segment, strategy, rung, arm and position
marginals.py       P(item at position) of a sampled list
estimators.py      off-policy estimates from weights and rewards
reward_model.py    what an item earns at a position, for the doubly robust estimate
logged_lists.py    the drawn lists of a log, with their candidates and rewards
targets.py         what another policy would have drawn them from
rebuilt_histories.py  histories as they were when a list was made
terms.py           the weights, rewards and predictions that follow
off_policy.py      `gpt4rec ope`: all of it together, or why the log cannot say
"""
