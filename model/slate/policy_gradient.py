"""An order by policy gradient on logged propensities: no model of clicks decides, but what drawn lists earned.

The policy draws like the log did, with the features of an order model added to the log-weights of the candidates:

    π_θ(i at p | above) ∝ exp(score_i ÷ temperature + θ · x_i(above))       over what was left to draw

θ = 0 is the policy of the log, whose propensities are known. One step from there maximises the clipped surrogate

    mean over decisions of min(r A, clip(r, 1 − ε, 1 + ε) A),   r = π_θ ÷ π_log

with A what the list earned from the position on, less what lists earn there on average (Schulman, Wolski, Dhariwal,
Radford and Klimov, 2017), as far as KL(π_log ‖ π_θ) stays within a trust region (Schulman et al., ICML 2015). In
service the policy lists position by position what it prefers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from model.online.logged_lists import LoggedList, law_of
from model.online.marginals import log_weights
from model.slate.click_model import one_thread
from model.slate.impressions import Impressions
from model.slate.learning import Items, Learned, OrderReward, learn
from service.artifact.array_types import BoolArray, Float64Array, IntArray
from service.artifact.scorers.order_weights import NO_GROUP
from service.engine.decode.draws import nucleus
from service.ordering.expected_reward import nearness

# Columns of θ.
COLUMNS = ("score", "item", "alike", "follows")
CLIP, TRUST = 0.2, 0.15
LISTS_MAX = 4_000
_PENALTIES = tuple(0.0 if step == 0 else 1e-3 * 3.0**step for step in range(14))
_NEVER = -1e9


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What was drawn at each position, and what else might have been.

    Attributes:
        log_weight: [L, K, C] log-weights of the candidates; −1e9 for those that could not be drawn there.
        x: [L, K, C, columns] features.
        chosen: [L, K] places of what was drawn.
        earned: [L, K] what the list earned from the position on.
        valid: [L, K] whether something was drawn.
    """

    log_weight: Float64Array
    x: Float64Array
    chosen: IntArray
    earned: Float64Array
    valid: BoolArray

    @property
    def advantage(self) -> Float64Array:
        """[L, K] what was earned, less the mean of the position, in units of its spread."""
        n = np.maximum(self.valid.sum(axis=0), 1)
        mean = (self.earned * self.valid).sum(axis=0) / n
        found = (self.earned - mean) * self.valid
        return np.asarray(found / max(float(np.sqrt((found**2).sum() / max(self.valid.sum(), 1))), 1e-9))


def decisions_of(lists: Sequence[LoggedList], learned: Learned, items: Items) -> Decisions:
    """Returns the decisions of drawn lists.

    Args:
        lists: Drawn lists, whose reward is what counts.
        learned: The order model, for what is known of items.
        items: What is known of the items.
    """
    n, k = len(lists), max(len(one.shown) for one in lists)
    c = max(len(one.candidates) for one in lists)
    weight, x = np.full((n, k, c), _NEVER), np.zeros((n, k, c, len(COLUMNS)))
    chosen, earned, valid = np.zeros((n, k), np.int64), np.zeros((n, k)), np.zeros((n, k), bool)
    for place, one in enumerate(lists):
        drawn, size = len(one.shown), len(one.candidates)
        weight[place, :drawn, :size], x[place, :drawn, :size] = _of_list(one, learned, items)
        chosen[place, :drawn], valid[place, :drawn] = one.shown, True
        earned[place, :drawn] = np.cumsum((one.reward[:drawn])[::-1])[::-1]
    return Decisions(weight, x, chosen, earned, valid)


def _of_list(one: LoggedList, learned: Learned, items: Items) -> tuple[Float64Array, Float64Array]:
    """[K, C] log-weights and [K, C, columns] features of a list."""
    law, weights, m = law_of(one.decoding), learned.weights, len(one.shown)
    plain = log_weights(one.scores, law)
    inside = nucleus(plain, law.nucleus)
    known = one.candidates < len(items.group)
    place = np.where(known, one.candidates, 0)
    group = np.where(known, items.group[place], NO_GROUP)
    own = np.where(known, weights.item[place], 0.0)
    score = (one.scores.astype(np.float64) - weights.scale[0]) / weights.scale[1]
    above = group[one.shown]
    same = (above[:, None] == group) & (group >= 0)  # [m, C]
    x = np.zeros((m, len(plain), len(COLUMNS)))
    x[:, :, 0], x[:, :, 1], x[:, :, 2] = score, own, nearness(m) @ same
    if len(items.follows):
        pairs = (above[:-1, None] >= 0) & (group >= 0)
        x[1:, :, 3] = np.where(pairs, items.follows[above[:-1, None], group], 0.0)
    found = np.full((m, len(plain)), _NEVER)
    left = np.ones(len(plain), bool)
    for position, shown in enumerate(one.shown.tolist()):
        there = left & (inside == inside[shown])
        found[position, there] = plain[there]
        left[shown] = False
    return found, x


def surrogate(at: Decisions, theta: Tensor, clip: float = CLIP) -> tuple[Tensor, Tensor]:
    """Returns the clipped surrogate and KL(π_log ‖ π_θ), both as means over decisions.

    Args:
        at: The decisions.
        theta: [columns] θ.
        clip: ε.
    """
    weight, x = torch.from_numpy(at.log_weight), torch.from_numpy(at.x)
    valid, advantage = torch.from_numpy(at.valid.astype(np.float64)), torch.from_numpy(at.advantage)
    logged = torch.log_softmax(weight, dim=2)
    now = torch.log_softmax(weight + x @ theta, dim=2)
    chosen = torch.from_numpy(at.chosen)[:, :, None]
    ratio = (now.gather(2, chosen) - logged.gather(2, chosen))[:, :, 0].exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)
    apart = (logged.exp() * (logged - now)).sum(dim=2)
    n = valid.sum().clamp(min=1.0)
    return (gain * valid).sum() / n, (apart * valid).sum() / n


def improve(at: Decisions, *, clip: float = CLIP, trust: float = TRUST) -> Float64Array:
    """Returns θ [columns] of the largest surrogate within the trust region.

    Args:
        at: The decisions.
        clip: ε.
        trust: Largest mean KL divergence of a decision, in nats.
    """
    found = np.zeros(len(COLUMNS))
    with one_thread():
        for penalty in _PENALTIES:  # from none on: the first that keeps to the region is the smallest
            found = _maximised(at, clip, penalty)
            with torch.no_grad():
                apart = surrogate(at, torch.from_numpy(found), clip)[1].item()
            if apart <= trust:
                return found
    return np.zeros(len(COLUMNS))


def _maximised(at: Decisions, clip: float, penalty: float) -> Float64Array:
    def loss(values: Float64Array) -> tuple[float, Float64Array]:
        theta = torch.from_numpy(values.copy()).requires_grad_()
        gain, apart = surrogate(at, theta, clip)
        value = penalty * apart - gain + 1e-4 * (theta**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        assert theta.grad is not None  # noqa: S101 - backward has made it
        return value.item(), theta.grad.numpy()

    done = optimize.minimize(loss, np.zeros(len(COLUMNS)), jac=True, method="L-BFGS-B", bounds=[(-8.0, 8.0)] * 4)
    return np.asarray(done.x, np.float64)


def learn_policy(seen: Impressions, lists: Sequence[LoggedList], items: Items, reward: OrderReward) -> Learned:
    """Learns an order by policy gradient; looks, and what is known of items, are those of `learn`.

    Args:
        seen: Drawn lists.
        lists: The same lists, whose reward is what counts.
        items: What is known of the items.
        reward: What counts.

    Raises:
        OrderError: The lists do not say how far people look.
    """
    learned = learn(seen, items, reward)
    theta = dict(zip(COLUMNS, improve(decisions_of(lists[:LISTS_MAX], learned, items)).tolist(), strict=True))
    temperature = float(np.mean([one.decoding.temperature for one in lists[:LISTS_MAX]]))
    score = float(learned.weights.scale[1]) / temperature + theta["score"]
    weights = replace(learned.weights, method="policy", weights={**theta, "base": 0.0, "score": score})
    return replace(learned, weights=weights)
