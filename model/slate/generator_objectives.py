"""Offline objectives for the generator itself, on what its lists earned: DPO and GRPO.

    π(i | history) = ∏ p(token_l | history, tokens before l)        the path of the item; π_ref is the network before

    DPO    −log σ(β [log π(w) − log π_ref(w) − log π(l) + log π_ref(l)])
           w was clicked, l stood above it and was not: who clicked on w had looked at l (Rafailov et al., NeurIPS 2023;
           pairs after Joachims, KDD 2002)
    GRPO   −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β KL,   ρ = π ÷ π_ref,  A = (r − mean) ÷ spread over the list
           r is a click over the look at its position, so that items further down are not to blame for it (Shao et al.,
           DeepSeekMath, 2024; the KL estimate is Schulman's)

Both go on from a trained network. They are measured (`python -m loadtests.shop.generator`), and no command trains
with them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.gpt4rec import GPT4Rec
from model.slate.click_model import one_thread

# likelihood: −log π of what was clicked, as in a training; what the others are compared with.
Objective = Literal["dpo", "grpo", "likelihood"]


@dataclass(frozen=True)
class Histories:
    """Right-padded histories as the encoder reads them.

    Attributes:
        item: [L, T] rows of the item table.
        type: [L, T] event types.
        time_ms: [L, T] milliseconds since the epoch.
        length: [L] inputs of each history.
    """

    item: Tensor
    type: Tensor
    time_ms: Tensor
    length: Tensor

    def of(self, rows: Tensor) -> Histories:
        """Returns some of them."""
        return Histories(self.item[rows], self.type[rows], self.time_ms[rows], self.length[rows])


@dataclass(frozen=True)
class Feedback:
    """Lists that a network made, and what they earned.

    Attributes:
        histories: The history of each list.
        shown: [L, K] items, from the top.
        clicked: [L, K] bool, whether they were clicked.
        examination: [K] probability of a look at each position.
    """

    histories: Histories
    shown: Tensor
    clicked: Tensor
    examination: Tensor


@dataclass(frozen=True)
class Settings:
    """How a network is fine-tuned.

    Attributes:
        epochs: Passes over the lists.
        batch: Lists of a step.
        learning_rate: Of AdamW.
        beta: Weight of what holds the network near where it was.
        clip: ε of GRPO.
        seed: Seed of the order of the lists.
    """

    epochs: int = 3
    batch: int = 64
    learning_rate: float = 3e-4
    beta: float = 0.1
    clip: float = 0.2
    seed: int = 0


def path_log_probs(model: GPT4Rec, histories: Histories, items: Tensor) -> Tensor:
    """Returns [L, K] log π of items after histories, with nothing known of the context.

    Args:
        model: The network.
        histories: The histories.
        items: [L, K] items.
    """
    h = model.encode(histories.item, histories.type, histories.time_ms, histories.length)
    context = torch.zeros(len(h), model.config.n_slots, dtype=torch.int64)
    q = model.query(h, context, torch.full((len(h),), -1, dtype=torch.int64))
    codes = model.codes[items]
    logits = model.path_logits(q[:, None].expand(-1, items.shape[1], -1), codes)
    levels = [
        torch.log_softmax(one, dim=-1).gather(-1, codes[..., level, None])[..., 0] for level, one in enumerate(logits)
    ]
    return torch.stack(levels).sum(0)


def dpo_loss(now: Tensor, before: Tensor, clicked: Tensor, beta: float) -> Tensor:
    """Returns the mean DPO loss over pairs of a clicked item and one above it that was not; 0 without pairs.

    Args:
        now: [L, K] log π.
        before: [L, K] log π_ref.
        clicked: [L, K] bool.
        beta: β.
    """
    k = now.shape[1]
    above = torch.ones(k, k, dtype=torch.bool).tril(-1)  # [winner, loser]
    pairs = clicked[:, :, None] & ~clicked[:, None, :] & above
    margin = now - before
    losses = -F.logsigmoid(beta * (margin[:, :, None] - margin[:, None, :]))
    return (losses * pairs).sum() / pairs.sum().clamp(min=1)


def likelihood_loss(now: Tensor, clicked: Tensor) -> Tensor:
    """Returns the mean −log π of clicked items; 0 without clicks.

    Args:
        now: [L, K] log π.
        clicked: [L, K] bool.
    """
    return -(now * clicked).sum() / clicked.sum().clamp(min=1)


def advantages(clicked: Tensor, examination: Tensor) -> Tensor:
    """Returns [L, K] A: clicks over looks, standardised within each list; 0 where a list was not clicked on.

    Args:
        clicked: [L, K] bool.
        examination: [K] probability of a look at each position.
    """
    reward = clicked.to(examination.dtype) / examination
    spread = reward.std(dim=1, keepdim=True, correction=0)
    return torch.where(spread > 0, (reward - reward.mean(dim=1, keepdim=True)) / spread.clamp(min=1e-9), 0.0)


def grpo_loss(now: Tensor, before: Tensor, advantage: Tensor, clip: float, beta: float) -> Tensor:
    """Returns the mean GRPO loss over the items of lists.

    Args:
        now: [L, K] log π.
        before: [L, K] log π_ref.
        advantage: [L, K] A.
        clip: ε.
        beta: β.
    """
    ratio = (now - before).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)
    apart = (before - now).exp() - (before - now) - 1.0
    return (beta * apart - gain).mean()


def fine_tune(model: GPT4Rec, feedback: Feedback, objective: Objective, settings: Settings) -> GPT4Rec:
    """Returns a network that goes on from another one; that one stays as it is.

    Args:
        model: The network that made the lists.
        feedback: The lists.
        objective: What is minimised.
        settings: How.
    """
    reference, tuned = model.eval(), copy.deepcopy(model).train()
    optimiser = torch.optim.AdamW(tuned.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(settings.seed)
    loss = _loss(feedback, objective, settings)
    with one_thread():
        for _ in range(settings.epochs):
            order = torch.randperm(len(feedback.shown), generator=generator)
            for rows in torch.split(order, settings.batch):
                histories, shown = feedback.histories.of(rows), feedback.shown[rows]
                with torch.no_grad():
                    before = path_log_probs(reference, histories, shown)
                optimiser.zero_grad()
                value = loss(path_log_probs(tuned, histories, shown), before, rows)
                value.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
                optimiser.step()
    return tuned.eval()


def _loss(feedback: Feedback, objective: Objective, settings: Settings) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if objective == "likelihood":
        return lambda now, _, rows: likelihood_loss(now, feedback.clicked[rows])
    if objective == "dpo":
        return lambda now, before, rows: dpo_loss(now, before, feedback.clicked[rows], settings.beta)
    advantage = advantages(feedback.clicked, feedback.examination)
    return lambda now, before, rows: grpo_loss(now, before, advantage[rows], settings.clip, settings.beta)
