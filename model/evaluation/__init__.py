"""Measures ranked lists: rankers in, figures with intervals out.

evaluate.py          the protocol: every system, the same users, the whole catalogue; start here
rankers.py           GPT4Rec as a ranker: the network in torch, or the exported graphs
baselines.py         item-CF and repeat purchase, tuned on the validation part
segments.py          the segment of a history by the default policies
metrics.py           recall, NDCG, MRR, coverage, novelty, diversity
list_qualities.py    exposure, inequality, divergence
bootstrap.py         paired bootstrap and Holm's correction
question_facts.py    how many targets are repeats, and how many tie with the event before
question_context.py  questions with more than a history: features, scene, gap, category, price band
report.py            the result as a table and as JSON
"""
