"""Scheduled sampling over the token path (Bengio et al., 2015): the decoder learns from paths that it began itself.

With teacher forcing the decoder always reads the true tokens, while a beam reads the ones it chose. Here it reads a
token drawn from its own prediction with a probability that grows over the training; what it has to predict stays the
true path.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.network.gpt4rec import GPT4Rec


def sampled_path_logits(model: GPT4Rec, q: Tensor, codes: Tensor, share: float) -> list[Tensor]:
    """Returns the logits of every level, after paths of which a share of the tokens are the network's own.

    Args:
        model: The network.
        q: [P, d] queries.
        codes: [P, levels] true token paths.
        share: Probability with which a token is drawn from the network's prediction instead.

    Returns:
        One [P, code_sizes[l]] tensor for each level l.
    """
    if share <= 0:
        return model.path_logits(q, codes)
    logits, s = [], model.begin(q)
    for level in range(model.config.levels):
        logits.append(model.level_logits(level, s))
        if level + 1 < model.config.levels:
            own = torch.multinomial(logits[-1].detach().float().softmax(dim=-1), 1)[:, 0]
            replaced = torch.rand(len(q)).to(q.device) < share
            s = model.step(level, s, torch.where(replaced, own, codes[:, level]))
    return logits
