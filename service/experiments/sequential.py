"""Tests that may be looked at at any time, as often as anybody likes. Pure.

`compare` tests whether two arms have the same click-through. Its subject is θ, the logarithm of their ratio, estimated
with a variance V that is clustered by subject. The statistic is the mixture likelihood ratio of θ = 0 against θ drawn
from N(0, τ²):

    Λ = √(V ÷ (V + τ²)) · exp(τ² θ̂² ÷ (2 V (V + τ²)))                       p = min(1, 1 ÷ Λ)

Under θ = 0, Λ is a martingale in the information 1 ÷ V, so it ever reaches 1 ÷ α with a probability of α at most
(Robbins, "Statistical methods related to the law of the iterated logarithm", 1970; Johari, Koomen, Pekelis and Walsh,
"Always valid inference", Operations Research 2022, for A/B tests). The interval holds every θ that the same test does
not reject. That successive estimates have independent increments in 1 ÷ V is exact for independent lists, and is an
approximation where subjects return (Jennison and Turnbull, "Group-sequential analysis incorporating covariate
information", JASA 1997, say when): `python -m loadtests.loop.sequential` measures what is left of the promise.

`share_mismatch` tests whether subjects fell into the arms as the shares say, by a Dirichlet mixture (Lindon and Malek,
"Anytime-valid inference for multinomial count data", NeurIPS 2022), which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from service.experiments.sums import Sums

ALPHA = 0.05
# Scale of the effects that the test looks for first: a tenth of the click-through. It is no tuning after the fact.
MIXTURE_SCALE = 0.1
# Below these an arm has too few subjects or clicked lists for a normal law, and nothing is concluded.
LEAST_SUBJECTS = 100
LEAST_CLICKED = 50
POWER = 0.8
# A mismatch of shares is a defect, not a finding: it is reported only where it is all but certain.
MISMATCH_ALPHA = 0.001
_MISMATCH_PRIOR = 1000.0
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of an arm beside the control.

    Attributes:
        lift: Relative difference of the click-through, as 0.1 for ten per cent more; None where nothing is known yet.
        low: Lower end of the interval of the lift, valid at any time.
        high: Upper end.
        p: Always-valid p.
        least_effect: The smallest relative drop that would have been found by now four times out of five.
        power: Probability, at least, that a change of `effect` would have been found by now.
        effect: The relative change that `power` speaks of.
    """

    lift: float | None
    low: float | None
    high: float | None
    p: float
    least_effect: float | None
    power: float
    effect: float

    @property
    def worse(self) -> bool:
        """Whether the arm is worse than the control by more than chance."""
        return self.high is not None and self.high < 0.0

    @property
    def better(self) -> bool:
        """Whether the arm is better than the control by more than chance."""
        return self.low is not None and self.low > 0.0


def compare(
    control: Sums, arm: Sums, *, alpha: float = ALPHA, scale: float = MIXTURE_SCALE, effect: float = -0.1
) -> Comparison:
    """Compares the click-through of an arm with that of the control.

    Args:
        control: What the control earned.
        arm: What the arm earned.
        alpha: Probability with which an arm that is no different is ever called different.
        scale: τ, the scale of the logarithm of the ratio under the alternative.
        effect: The relative change whose power is told, above −1.
    """
    enough = all(one.subjects >= LEAST_SUBJECTS and one.clicked >= LEAST_CLICKED for one in (control, arm))
    variance = control.log_rate_variance + arm.log_rate_variance
    if not enough or not math.isfinite(variance):
        return Comparison(None, None, None, 1.0, None, 0.0, effect)
    estimate = math.log(arm.rate / control.rate)
    half, error = half_width(variance, alpha, scale), math.sqrt(variance)
    sought = abs(math.log1p(effect))
    return Comparison(
        lift=math.expm1(estimate),
        low=math.expm1(estimate - half),
        high=math.expm1(estimate + half),
        p=p_value(estimate, variance, scale),
        least_effect=math.expm1(-(half + _NORMAL.inv_cdf(POWER) * error)),
        power=_NORMAL.cdf((sought - half) / error),
        effect=effect,
    )


def p_value(estimate: float, variance: float, scale: float = MIXTURE_SCALE) -> float:
    """Returns the always-valid p of an estimate that is 0 under the hypothesis.

    Args:
        estimate: θ̂.
        variance: V, its variance.
        scale: τ of the mixture.
    """
    tau2 = scale * scale
    log_ratio = 0.5 * math.log(variance / (variance + tau2))
    log_ratio += tau2 * estimate * estimate / (2.0 * variance * (variance + tau2))
    return math.exp(min(0.0, -log_ratio))


def half_width(variance: float, alpha: float = ALPHA, scale: float = MIXTURE_SCALE) -> float:
    """Returns half the width of the interval of θ: all values whose p is at least `alpha`.

    Args:
        variance: V.
        alpha: Probability with which the intervals ever miss θ.
        scale: τ of the mixture.
    """
    tau2 = scale * scale
    whole = variance + tau2
    return math.sqrt(2.0 * variance * whole / tau2 * (0.5 * math.log(whole / variance) - math.log(alpha)))


@dataclass(frozen=True, slots=True)
class ShareCheck:
    """Whether subjects fell into the arms as the shares say.

    Attributes:
        p: Always-valid p.
        mismatch: Whether they did not: then nothing else of the report can be believed.
    """

    p: float
    mismatch: bool


def share_mismatch(
    counts: Sequence[int], shares: Sequence[float], *, alpha: float = MISMATCH_ALPHA, prior: float = _MISMATCH_PRIOR
) -> ShareCheck:
    """Tests whether numbers of subjects follow the shares of their arms.

    Args:
        counts: [arms] subjects of each arm.
        shares: [arms] shares, above 0 for each arm with subjects; they need not add up to 1.
        alpha: Probability with which arms of the right shares are ever said to mismatch.
        prior: How many subjects the shares of the alternative are worth: more find smaller differences, later.

    Raises:
        ValueError: An arm without a share has subjects.
    """
    if any(count and share <= 0.0 for count, share in zip(counts, shares, strict=True)):
        raise ValueError("an arm without a share has subjects")
    total = sum(shares)
    pairs = [(count, share / total) for count, share in zip(counts, shares, strict=True) if share > 0.0]
    log_ratio = math.lgamma(prior) - math.lgamma(prior + sum(counts))
    for count, share in pairs:
        worth = prior * share
        log_ratio += math.lgamma(worth + count) - math.lgamma(worth) - count * math.log(share)
    p = math.exp(min(0.0, -log_ratio))
    return ShareCheck(p, p < alpha)
