"""The log of what was shown and what came of it: reading it, joining it, and what other policies would have earned.

log_schema.py      the columns of exposures, events, merges and erasures; entries of the streams as rows
log_folder.py      the folder of Parquet files: writing one whole, reading a time range
attribution.py     which list an event belongs to; start here
partitions.py      the same for a log of any size, subjects in parts
made_traffic.py    clicks that look made
outcomes.py        what each position of each list earned
grouped.py         rates of groups of lists, with intervals clustered by subject
online_report.py   `gpt4rec report online`: model, segment, strategy, rung, arm and position
marginals.py       P(item at position) of a sampled list
estimators.py      off-policy estimates from weights and rewards
"""
