"""The network in torch: embeddings, encoder, context norm, code decoder, dense scores.

config.py           the shape of a network, as plain data
gpt4rec.py          the network itself; start here
encoders/           the backbones: history in, hidden states out
request_context.py  what a request adds to a hidden state: context norm and soft prompts
content_gate.py     item contents that stand in for rarely seen ids
scoring.py          hidden states and dense scores of stored histories
"""
