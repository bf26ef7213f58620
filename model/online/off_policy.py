"""What another policy would have earned on the traffic of a log, or why the log cannot say: `gpt4rec ope`.

Each segment is judged by itself, and the whole is the mean over segments by their shares of the lists that a model
made, because segments may draw different shares of their lists. A segment whose lists were mostly decoded as the
target would decode them is judged by these lists as they are; else by its drawn lists, with weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from model.online.estimators import (
    CONFIDENCE,
    Estimator,
    Influenced,
    Terms,
    effective_lists,
    effective_sample,
    estimate,
    mean,
    weighted_mean,
)
from model.online.logged_lists import OTHER_LAW, SHOWN_AGAIN, ItemNumbers, Sample, name_of
from model.online.targets import Target
from model.online.terms import TermsOfLists, terms_of

# Bounds beyond which the log cannot say.
LEAST_EFFECTIVE = 200
_MOST_OUTSIDE = 0.01
_MOST_WITHOUT_LAW = 0.05
_MOST_UNJUDGED = 0.01
_MOST_UNDECODED = 0.1
_WEIGHTS_OFF = 4.0
_PER = 1000


@dataclass(frozen=True, slots=True)
class Judged:
    """What can be said of one segment.

    Attributes:
        segment: Its name.
        share: Its share of the lists that a model made.
        lists: Number of these.
        used: Lists that the estimates rest on.
        target: How the target decodes.
        on_policy: Whether these lists were decoded as the target would, so that nothing is weighted.
        effective: Effective sample.
        outside: Share of the target's items that the log could not have drawn; None if it is not known.
        mean_weight: Mean weight of a position; 1 in the long run.
        estimates: The estimates by name; empty where refused.
        refused: Why the log cannot say; None if it can.
    """

    segment: str
    share: Influenced
    lists: int
    used: int
    target: str
    on_policy: bool
    effective: float
    outside: float | None
    mean_weight: float | None
    estimates: Mapping[Estimator, Influenced]
    refused: str | None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON can hold it, values per thousand lists."""
        return {
            "segment": self.segment,
            "share": self.share.value,
            "lists": self.lists,
            "used": self.used,
            "target": self.target,
            "on_policy": self.on_policy,
            "effective_sample": self.effective,
            "outside": self.outside,
            "mean_weight": self.mean_weight,
            "estimates": {name: per_thousand(one) for name, one in self.estimates.items()},
            "refused": self.refused,
        }


def judge(sample: Sample, target: Target, *, least_effective: float = LEAST_EFFECTIVE) -> dict[str, Any]:
    """Judges a policy by a log.

    Args:
        sample: The lists of the log.
        target: The policy.
        least_effective: Smallest effective sample that an estimate may rest on.

    Returns:
        The report, as JSON can hold it.

    Raises:
        LogError: The target does not fit the log.
    """
    made = sample.made_by_model
    segments = sorted(made["segment"].unique()) if len(made) else []
    numbers = ItemNumbers.of(sample.lists)
    judged = [_segment(sample, target, numbers, name, least_effective) for name in segments]
    logged = _mean_of(made, sample.subjects) if len(made) else None
    refused = _refusal(judged)
    overall = {} if refused else _overall(judged)
    return {
        "target": target.name,
        "lists": len(made),
        "drawn": len(sample.lists),
        "left_out": {f"{segment}: {why}": n for (segment, why), n in sorted(sample.left_out.items())},
        "subjects": sample.subjects,
        "share_of_subjects": sample.share,
        "per_lists": _PER,
        "confidence": CONFIDENCE,
        "least_effective_sample": least_effective,
        "logged": per_thousand(logged) if logged else None,
        "estimates": {name: per_thousand(one) for name, one in overall.items()},
        "lift": {name: per_thousand(one.minus(logged)) for name, one in overall.items() if logged},
        "refused": refused,
        "segments": [one.to_json() for one in judged],
    }


def compare(
    sample: Sample, target: Target, base: Target, *, least_effective: float = LEAST_EFFECTIVE
) -> dict[str, Any]:
    """Judges a policy against another one, neither of which need have made the lists of the log.

    Args:
        sample: The lists of the log.
        target: The policy.
        base: What it is compared with.
        least_effective: Smallest effective sample that an estimate may rest on.

    Returns:
        The report of `judge` for both, and in `lift` what the first earns more than the second, with intervals of the
        difference over the same subjects.

    Raises:
        LogError: A policy does not fit the log.
    """
    made, numbers = sample.made_by_model, ItemNumbers.of(sample.lists)
    segments = sorted(made["segment"].unique()) if len(made) else []
    both = [
        [_segment(sample, policy, numbers, name, least_effective) for name in segments] for policy in (target, base)
    ]
    refused = next(filter(None, map(_refusal, both)), None)
    overall, before = ({}, {}) if refused else map(_overall, both)
    shared = [name for name in overall if name in before]
    return {
        "target": target.name,
        "base": base.name,
        "lists": len(made),
        "drawn": len(sample.lists),
        "left_out": {f"{segment}: {why}": n for (segment, why), n in sorted(sample.left_out.items())},
        "subjects": sample.subjects,
        "per_lists": _PER,
        "confidence": CONFIDENCE,
        "estimates": {name: per_thousand(overall[name]) for name in shared},
        "base_estimates": {name: per_thousand(before[name]) for name in shared},
        "lift": {name: per_thousand(overall[name].minus(before[name])) for name in shared},
        "refused": refused,
        "segments": [one.to_json() for one in both[0]],
    }


def per_thousand(one: Influenced) -> dict[str, float | None]:
    """Returns a value and its interval, per thousand lists."""
    ends = one.interval()
    low, high = (None, None) if ends is None else (end * _PER for end in ends)
    return {"value": one.value * _PER, "low": low, "high": high}


def _mean_of(made: pl.DataFrame, subjects: int) -> Influenced:
    return mean(_plain_terms(made, subjects), made["earned"].to_numpy())


def _plain_terms(made: pl.DataFrame, subjects: int) -> Terms:
    """Lists as they are: every weight is 1."""
    earned = made["earned"].to_numpy()[:, None].astype(np.float64)
    return Terms(
        subject=made["owner"].to_numpy(),
        subjects=subjects,
        valid=np.ones(earned.shape, bool),
        weight=np.ones(earned.shape),
        reward=earned,
        predicted=np.zeros(earned.shape),
        expected=np.zeros(len(earned)),
    )


def _share_of(sample: Sample, segment: str) -> Influenced:
    """The share of a segment of the lists that a model made."""
    made = sample.made_by_model
    return mean(_plain_terms(made, sample.subjects), (made["segment"] == segment).to_numpy().astype(np.float64))


def _segment(sample: Sample, target: Target, numbers: ItemNumbers, name: str, least_effective: float) -> Judged:
    made = sample.made_by_model.filter(pl.col("segment") == name)
    decoding = target.decoding(name)
    said = "as it was" if decoding is None else name_of(decoding)
    share = _share_of(sample, name)
    same = made.filter(pl.col("decoding") == said)
    if not target.own_model and 2 * len(same) >= len(made):
        return _on_policy(name, share, len(made), said, _plain_terms(same, sample.subjects), least_effective)
    lists = [one for one in sample.lists if one.segment == name]
    without = sum(n for (segment, why), n in sample.left_out.items() if segment == name and why != SHOWN_AGAIN)
    refused = _unfit(name, len(made), len(lists), without, sample.left_out[name, OTHER_LAW])
    if refused:
        return Judged(name, share, len(made), 0, said, False, 0.0, None, None, {}, refused)
    found = terms_of(lists, target, numbers, sample.subjects)
    return _weighted(name, share, len(made), said, found, least_effective)


def _on_policy(name: str, share: Influenced, lists: int, target: str, terms: Terms, least: float) -> Judged:
    effective = effective_sample(terms)
    refused = _too_few(name, effective, least)
    found = mean(terms, terms.reward[:, 0])
    estimates: dict[Estimator, Influenced] = {} if refused else dict.fromkeys(("ips", "snips", "dr"), found)
    return Judged(name, share, lists, len(terms.subject), target, True, effective, 0.0, 1.0, estimates, refused)


def _weighted(name: str, share: Influenced, lists: int, target: str, found: TermsOfLists, least: float) -> Judged:
    terms = found.terms
    if refused := _undecoded(name, found.undecoded, found.undecoded + len(terms.subject)):
        return Judged(name, share, lists, len(terms.subject), target, False, 0.0, None, None, {}, refused)
    effective = effective_sample(terms)
    weights = mean(terms, terms.weight.sum(axis=1) / terms.valid.sum(axis=1))
    refused = (
        _outside(name, found.outside)
        or _too_few(name, effective, least)
        or _weights_off(name, weights, known=found.outside is not None)
    )
    estimates: dict[Estimator, Influenced] = {}
    if not refused:
        usable = (one for one in terms.estimators if one != "list_ips" or effective_lists(terms) >= least)
        estimates = {one: estimate(terms, one) for one in usable}
    used = len(terms.subject)
    return Judged(
        name, share, lists, used, target, False, effective, found.outside, weights.value, estimates, refused
    )  # fmt: skip


def _unfit(name: str, made: int, usable: int, without: int, other_law: int) -> str | None:
    if not usable and not without:
        return (
            f"segment {name}: all {made:,} lists are deterministic, so the log has nothing of what else might have "
            "been shown; give the segment an exploration share"
        )
    if other_law > _MOST_UNJUDGED * (usable + without):
        return (
            f"segment {name}: the candidates of {other_law:,} drawn lists do not give the propensities that were "
            "logged; something changed the lists after the draw"
        )
    if without > _MOST_WITHOUT_LAW * (usable + without):
        return f"segment {name}: {without:,} of {usable + without:,} drawn lists cannot be used; see left_out"
    return None


def _undecoded(name: str, undecoded: int, drawn: int) -> str | None:
    if undecoded <= _MOST_UNDECODED * drawn:
        return None
    return (
        f"segment {name}: {undecoded:,} of {drawn:,} drawn lists cannot be decoded again, because the log does not "
        f"have the histories or exclusions that they were made with (at most {_MOST_UNDECODED:.0%} may be missing)"
    )


def _outside(name: str, outside: float | None) -> str | None:
    if outside is None or outside <= _MOST_OUTSIDE:
        return None
    return (
        f"segment {name}: {outside:.1%} of what the target would show could not have been drawn by the log's policy; "
        f"explore with a wider nucleus (at most {_MOST_OUTSIDE:.0%} may be missing)"
    )


def _too_few(name: str, effective: float, least: float) -> str | None:
    if effective >= least:
        return None
    return (
        f"segment {name}: the log counts for {effective:.0f} subjects under the target, and estimates need "
        f"{least:.0f}; gather more lists, explore more, or judge a policy that is nearer to the log's"
    )


def _weights_off(name: str, weights: Influenced, *, known: bool) -> str | None:
    """Weights have the mean 1 where the log could have drawn all that the target would show."""
    error = float(np.sqrt((weights.influence**2).sum()))
    off = abs(weights.value - 1.0)
    if off <= _WEIGHTS_OFF * error + (0.0 if known else _MOST_OUTSIDE) or off <= _MOST_OUTSIDE:
        return None
    return (
        f"segment {name}: the weights have a mean of {weights.value:.2f} and not 1, so the target shows items that the "
        "log could not have drawn, or the lists were not drawn as the log says"
    )


def _refusal(judged: Sequence[Judged]) -> str | None:
    if not judged:
        return "no list of the log was made by a model"
    missing = [one for one in judged if one.refused]
    share = sum(one.share.value for one in missing)
    if share <= _MOST_UNJUDGED and len(missing) < len(judged):
        return None
    worst = max(missing, key=lambda one: one.share.value)
    more = f" (and {len(missing) - 1} more segments)" if len(missing) > 1 else ""
    return f"{worst.refused}{more}"


def _overall(judged: Sequence[Judged]) -> dict[Estimator, Influenced]:
    """The mean over the segments that were judged, by their shares, for each estimator that all of them allow."""
    kept = [one for one in judged if not one.refused]
    shares = {one.segment: one.share for one in kept}
    names = [name for name in kept[0].estimates if all(name in one.estimates for one in kept)]
    return {name: weighted_mean({one.segment: one.estimates[name] for one in kept}, shares) for name in names}
