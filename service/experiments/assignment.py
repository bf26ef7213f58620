"""Which arms a subject is in. Pure: the same subject has the same arms on every replica, and after every restart."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate

from service.experiments.document import BUCKETS, Arm, Document, Experiment


def bucket_of(salt: str, subject: str) -> int:
    """Returns a subject's bucket, 0 to 9,999: a keyed hash, so that buckets by other salts are independent.

    Args:
        salt: What the bucket is for.
        subject: The subject as it is stored.
    """
    digest = blake2b(f"{salt}\0{subject}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # The remainder favours a bucket by 10⁴ ÷ 2⁶⁴ at most.
    return int.from_bytes(digest, "big") % BUCKETS


@dataclass(frozen=True, slots=True)
class Assigned:
    """The arms of a subject.

    Attributes:
        arms: Name of the arm of each experiment.
        chosen: The arms themselves, in the order of the experiments.
        held_out: Whether the subject is held out of everything new.
    """

    arms: Mapping[str, str] = field(default_factory=dict)
    chosen: tuple[Arm, ...] = ()
    held_out: bool = False


NOTHING = Assigned()
HELD_OUT = Assigned(held_out=True)


class Assignment:
    """Assigns arms by one version of the document.

    Args:
        document: The experiments.
    """

    def __init__(self, document: Document) -> None:
        self._holdout = document.holdout
        self._experiments = [_Running.of(one) for one in document.splits]

    def of(self, subject: str) -> Assigned:
        """Returns the arms of a subject.

        Args:
            subject: The subject as it is stored, a pseudonym where ids are hashed.
        """
        held = self._holdout
        if held is not None and bucket_of(f"hold-out {held.salt}", subject) < held.share * BUCKETS:
            return HELD_OUT
        chosen: list[tuple[str, Arm]] = []
        buckets: dict[str, int] = {}
        for one in self._experiments:
            layer = one.experiment.layer
            if layer not in buckets:
                buckets[layer] = bucket_of(f"layer {layer}", subject)
            arm = one.arm(buckets[layer], subject)
            if arm is not None:
                chosen.append((one.experiment.name, arm))
        if not chosen:
            return NOTHING
        return Assigned({name: arm.name for name, arm in chosen}, tuple(arm for _, arm in chosen))

    def forced(self, wanted: Mapping[str, str], subject: str | None) -> Assigned | str:
        """Returns the arms of a subject with some of them replaced, for a tester.

        Args:
            wanted: Name of the arm by experiment.
            subject: The subject; None for a request without one.

        Returns:
            The arms, or what is wrong with `wanted`, in a sentence.
        """
        running = {one.experiment.name: one.experiment for one in self._experiments}
        own = NOTHING if subject is None else self.of(subject)
        arms = {name: arm for name, arm in own.arms.items() if name not in wanted}
        for name, arm in wanted.items():
            if name not in running:
                return f"no experiment {name} is running; there are: {', '.join(running) or 'none'}"
            if running[name].arm(arm) is None:
                there = ", ".join(one.name for one in running[name].arms)
                return f"the experiment {name} has no arm {arm}; there are: {there}"
            arms[name] = arm
        # In the order of the document, so that two that both name a model are resolved as for everybody.
        chosen = [(name, one.arm(arms[name])) for name, one in running.items() if name in arms]
        return Assigned(arms, tuple(arm for _, arm in chosen if arm is not None))


@dataclass(frozen=True, slots=True)
class _Running:
    """A running experiment and the ends of its arms' parts, in buckets."""

    experiment: Experiment
    ends: tuple[float, ...]

    @classmethod
    def of(cls, experiment: Experiment) -> _Running:
        return cls(experiment, tuple(BUCKETS * end for end in accumulate(arm.share for arm in experiment.arms)))

    def arm(self, bucket: int, subject: str) -> Arm | None:
        """The arm of a subject that is in this bucket of the layer; None if it is not in the experiment, or not yet."""
        one = self.experiment
        low, high = one.buckets
        if not low <= bucket < high:
            return None
        # The middle of the bucket, so that rounding of the ends moves nobody.
        at = bucket_of(f"arm {one.salt}", subject) + 0.5
        index = min(bisect_right(self.ends, at), len(one.arms) - 1)
        arm = one.arms[index]
        start = self.ends[index] - BUCKETS * arm.share
        return arm if at - start < one.portion * BUCKETS * arm.share else None
