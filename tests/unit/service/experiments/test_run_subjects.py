"""The sums of an experiment's days, added up, are clustered by subject over the whole experiment."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from deploy.loop.sink.live_join import LiveJoin
from deploy.loop.sink.tallies import DAY_MS, Tallies
from loadtests.loop.users import Experiment, Traffic
from service.experiments.outcomes import Place, of_arms, packed, unpacked
from service.experiments.run_subjects import ALL_MOST, RunSubjects
from service.experiments.sequential import share_mismatch
from service.experiments.sums import Sums

DAY = 20_000


def test_the_days_of_an_arm_add_up_to_its_subjects_over_all_of_them() -> None:
    rng = np.random.default_rng(19)
    tallies = Tallies(subjects_most=1000)
    join = LiveJoin(tallies, open_most=1000, window_ms=60_000)
    plain: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    written: dict[str, bytes] = {}
    for day in range(DAY, DAY + 5):
        clicked = []
        for number in range(40):
            subject, list_id, time_ms = f"u:{rng.integers(12)}", f"{day}-{number}", day * DAY_MS + number
            arms = [{"experiment": "e", "arm": "b"}]
            join.add_list({"list_id": list_id, "subject": subject, "time_ms": time_ms, "items": ["1"], "arms": arms})
            plain[subject][0] += 1
            if rng.random() < 0.3:
                clicked.append((subject, list_id))
        for subject, list_id in clicked:  # the next morning: the day of the list changes after that of others
            plain[subject][1] += 1
            at = (day + 1) * DAY_MS - 1
            join.add_event({
                "subject": subject, "item_id": "1", "type": "click", "time_ms": at, "received_ms": at,
                "event_id": list_id, "list_id": list_id,
            })  # fmt: skip
        for one in tallies.days():
            written |= packed({Place(one, *key): found for key, found in tallies.outcomes(one).items()})
        tallies.forget_before(day)
    wanted = Sums()
    for n, c in plain.values():
        wanted = wanted.with_subject((0, 0), (n, c))
    assert of_arms(unpacked(written), "e", since_s=DAY * 86_400)["b"].sums == wanted


def test_subjects_beyond_the_bound_are_left_out_in_all_arms_alike() -> None:
    runs = RunSubjects(subjects_most=3)
    assert runs.change(1, "e=a", "u:1", 1, 0) == ((0, 0), (1, 0))
    assert runs.change(1, "e=b", "u:2", 1, 1) == ((0, 0), (1, 1))
    assert runs.change(1, "e=b", "u:2", -1, -1) == ((1, 1), (0, 0))
    assert runs.change(2, "e=b", "u:3", 1, 0) is not None
    assert runs.change(2, "e=b", "u:4", 1, 0) is None
    assert runs.change(2, "e=b", "u:4", -1, 0) is None
    assert (runs.take_left_out(), runs.take_left_out()) == (1, 0)
    assert runs.change(2, "e=b", "u:2", 1, 1) == ((0, 0), (1, 1))
    assert runs.change(2, "f=b", "u:4", 1, 0) is not None  # another experiment has room of its own


def test_an_experiment_is_forgotten_after_two_days_without_a_list() -> None:
    runs = RunSubjects(subjects_most=1)
    runs.change(1, "e=b", "u:1", 1, 0)
    runs.forget_idle(3)
    assert runs.change(3, "e=b", "u:1", 1, 0) == ((1, 0), (2, 0))
    runs.forget_idle(6)
    assert runs.change(6, "e=b", "u:2", 1, 0) == ((0, 0), (1, 0))


def test_of_too_many_experiments_the_one_that_changed_longest_ago_stays_as_it_is() -> None:
    runs = RunSubjects(subjects_most=2)
    experiments = [f"e{n}=b" for n in range(ALL_MOST)]
    for one in [*experiments, experiments[0]]:
        for subject in ("u:1", "u:2"):
            runs.change(1, one, subject, 1, 0)
    assert runs.change(1, "new=b", "u:1", 1, 0) == ((0, 0), (1, 0))
    for lists in (-1, 1):  # a click on a list of it
        assert runs.change(1, experiments[1], "u:1", lists, 0) is None
    assert runs.change(1, experiments[0], "u:1", 1, 0) == ((2, 0), (3, 0))
    for cycle in range(50):  # those of a loop, which come and go
        assert runs.change(1, f"loop-{cycle}=b", "u:1", 1, 0) == ((0, 0), (1, 0))


def test_returning_subjects_of_equal_arms_are_not_taken_for_a_mismatch() -> None:
    """Added up by subject and day, a few active subjects make one experiment in five look uneven."""
    wrong = 0
    for seed in range(3):
        run = Experiment(Traffic(users=400, lists_per_hour=50, activity=1.5), 0.0, seed)
        for _ in range(14):
            run.show(24 * 50)
        wrong += share_mismatch([one.subjects for one in run.sums], [0.5, 0.5]).mismatch
        assert sum(one.subjects for one in run.sums) <= 400
    assert wrong == 0
