"""Learns how much each signal counts in the ranking: candidates of validation questions in, weights out.

candidates.py    the candidates of questions, with the value of every signal; start here
likelihood.py    the listwise likelihood, and the weights that maximise it under a prior
held_out.py      cross-validation over questions: what weights are worth on questions they were not learned from
learning.py      the whole procedure: strength of the prior, signals that say nothing, groups of users, curve, ablation
cold_bonus.py    how far items without events may come before others
gather.py        asks the questions: through the engine over the written graphs, and through the signals alone
proposals.py     what the signals besides the network propose
without_network.py   weights of a scorer without a network
"""
