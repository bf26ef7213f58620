"""What both artefacts are asked: the newest events, which neither should have been trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.data.dataset import Dataset, Sequences
from model.data.split import Holdout, time_boundaries
from model.data.times import iso_utc
from model.errors import RunError
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.artifact.artifact import Artifact
from service.artifact.features import SIGNAL_TYPES, type_index

# Events of a new user that are asked for: the first, and those after one and two events.
FIRST_EVENTS = 3


@dataclass(frozen=True)
class Question:
    """A history and the item that came next.

    Attributes:
        user: Number of the user; questions of one user depend on each other.
        items: Ids of the items of the history, oldest first.
        types: Their event types, as indices.
        times_ms: Their times.
        target: Id of the item that came next; None where only lists are compared.
    """

    user: int
    items: Sequence[str]
    types: Sequence[int]
    times_ms: Sequence[int]
    target: str | None


@dataclass(frozen=True)
class Questions:
    """The questions of a gate.

    Attributes:
        held_out: One for each user with a history: the first event of the hold-out.
        new_users: The first events of users who have no earlier event.
        requests: Recorded requests, or the histories of `held_out` where none are given.
        kind: What is held out, in words.
        notes: What a reader of the report should know.
    """

    held_out: Sequence[Question]
    new_users: Sequence[Question]
    requests: Sequence[Question]
    kind: str
    notes: Sequence[str]


def ask(log: Sequences, dataset: Dataset, candidate: Artifact, champion: Artifact, limit: int, **how: Any) -> Questions:
    """Chooses the questions.

    Args:
        log: All events.
        dataset: The data set that they come from.
        candidate: The new artefact.
        champion: The artefact in service.
        limit: Most questions of each kind.
        **how: `since_ms`, the begin of the hold-out, or None; `requests`, a file of recorded requests, or None.

    Raises:
        RunError: Nothing is held out, or the candidate was trained on it.
    """
    since_ms: int | None = how.get("since_ms")
    training = candidate.manifest.get("training") or {}
    same = dataset.fingerprint == candidate.manifest.get("data", {}).get("fingerprint")
    if since_ms is None and same and training.get("split") == "leave_one_out":
        test = split_of(TrainConfig().updated(training), log).test
        held, fresh, kind = test, Holdout(*(np.zeros(0, np.int64),) * 3), "the last event of each user"
        notes = ["the split leaves one out: there are no new users, and later events of others were trained on"]
    else:
        begin = since_ms if since_ms is not None else _begin(log, candidate, training, same=same)
        held, fresh = _after(log, begin)
        kind, notes = f"events from {iso_utc(begin)} on", _seen(candidate, champion, begin)
    if not len(held):
        raise RunError(
            f"no user with a history is held out: {kind}",
            where="--data and --since",
            fix="give newer data, or an earlier --since",
        )
    sampled = held.sample(limit)
    questions = [_question(log, sampled, i) for i in range(len(sampled))]
    newcomers = fresh.sample(limit)
    file: Path | None = how.get("requests")
    requests = questions if file is None else recorded(file, log, limit)
    return Questions(questions, [_question(log, newcomers, i) for i in range(len(newcomers))], requests, kind, notes)


def _begin(log: Sequences, candidate: Artifact, training: Mapping[str, Any], *, same: bool) -> int:
    """Returns when the hold-out begins: the test part of the candidate, or what came after its data."""
    if same:
        config = TrainConfig().updated(training)
        return time_boundaries(log, config.valid_share, config.test_share)[1]
    last = (candidate.manifest.get("data") or {}).get("last_event_ms")
    if last is None or int(log.time_ms.max(initial=0)) <= int(last):
        raise RunError(
            "the data has no event after those of the candidate",
            where="--data",
            fix="give newer data or the candidate's own, or say with --since where the hold-out begins",
        )
    return int(last) + 1


def _after(log: Sequences, begin_ms: int) -> tuple[Holdout, Holdout]:
    """Returns the first event of each user from a time on, and the first events of users without an earlier one."""
    older = np.concatenate([np.zeros(1, np.int64), np.cumsum(log.time_ms < begin_ms)])
    before = np.diff(older[log.offsets])
    users = np.flatnonzero((before > 0) & (before < log.lengths))
    rows = log.offsets[users] + before[users]
    fresh = np.flatnonzero(before == 0)
    many = np.minimum(log.lengths[fresh], FIRST_EVENTS)
    of = np.repeat(fresh, many)
    at = log.offsets[of] + np.concatenate([np.arange(n) for n in many] or [np.zeros(0, np.int64)])
    return Holdout(users, rows, log.item[rows]), Holdout(of, at, log.item[at])


def _seen(candidate: Artifact, champion: Artifact, begin_ms: int) -> list[str]:
    """Returns a note if the champion has seen the hold-out.

    Raises:
        RunError: The candidate has.
    """
    until = [(a.manifest.get("data") or {}).get("trained_until_ms") for a in (candidate, champion)]
    if until[0] is not None and until[0] >= begin_ms:
        raise RunError(
            f"the candidate was trained on events until {iso_utc(until[0])}, so it knows the hold-out",
            where=f"the hold-out from {iso_utc(begin_ms)} on",
            fix="give a later --since, or newer data",
        )
    if until[1] is not None and until[1] >= begin_ms:
        return [f"the champion was trained on events until {iso_utc(until[1])}: its figures are too good"]
    return []


def _question(log: Sequences, asked: Holdout, i: int) -> Question:
    user, end = int(asked.users[i]), int(asked.history_end[i])
    rows = slice(int(log.offsets[user]), end)
    items = [log.item_ids[item] for item in log.item[rows]]
    target = log.item_ids[int(asked.target[i])]
    return Question(user, items, log.type[rows].tolist(), log.time_ms[rows].tolist(), target)


def recorded(file: Path, log: Sequences, limit: int) -> list[Question]:
    """Reads recorded requests: the bodies of `/recommend`, one JSON object a line.

    A `user_id` of the log brings its events; `events` follow them.

    Raises:
        RunError: The file cannot be read, or a line is no such body.
    """
    rows = {user: row for row, user in enumerate(log.user_ids)}
    found: list[Question] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if len(found) < limit and line.strip():
                    found.append(_recorded(json.loads(line), log, rows, number))
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise RunError(
            f"the recorded requests cannot be read: {error!r}",
            where=str(file),
            fix="write the body of one request a line, as JSON",
        ) from error
    return found


def _recorded(body: Mapping[str, Any], log: Sequences, rows: Mapping[str, int], number: int) -> Question:
    row = rows.get(str(body.get("user_id")))
    own = log.user(row) if row is not None else slice(0, 0)
    events = [event for event in body.get("events") or () if event.get("type", "view") not in SIGNAL_TYPES]
    last = int(log.time_ms[own][-1]) if row is not None and own.stop > own.start else 0
    return Question(
        user=number,
        items=[*(log.item_ids[item] for item in log.item[own]), *(str(event["item_id"]) for event in events)],
        types=[*log.type[own].tolist(), *(type_index(str(event.get("type", "view"))) for event in events)],
        times_ms=[*log.time_ms[own].tolist(), *(int(event.get("timestamp") or last) for event in events)],
        target=None,
    )
