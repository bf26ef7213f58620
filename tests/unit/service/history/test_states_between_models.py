"""Which states a model takes over from another one: those that its encoder would make as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from service.artifact.graphs.encoder_version import EncoderVersion, Step
from service.engine.encoder_state import EncoderState
from service.history.profile import Profile
from service.history.state_blob import VersionedState, pack
from service.lifecycle.served_model import ServedModel
from service.store.records import StoredEvent, Subject, UserRecord
from tests.support.fakes import LAYOUT

USER = Subject("user", "u1")
OLD = Step(3, b"old-step")
NEW = Step(5, b"new-step")
EVENTS = tuple(StoredEvent(str(i), "view", 1000 + i, f"e{i}", 1000.0 + i) for i in range(2))


@dataclass
class Served:
    """The parts of a served model that a profile asks for."""

    encoder_version: EncoderVersion
    n_items: int = 5

    @property
    def vocabulary(self) -> Any:
        return _Vocabulary({str(i): i for i in range(self.n_items)})

    @property
    def engine(self) -> Any:
        return _ENGINE

    def user_rows(self, features: Mapping[str, Any]) -> None:
        """Its encoder reads no features."""


@dataclass
class _Vocabulary:
    item_index: dict[str, int]


@dataclass
class _Engine:
    state_layout: Any = LAYOUT


_ENGINE = _Engine()


def served(name: str, *steps: Step) -> ServedModel:
    return cast(ServedModel, Served(EncoderVersion(name, steps)))


def state(step: Step) -> VersionedState:
    made = EncoderState({a.name: np.zeros(a.shape, a.dtype) for a in LAYOUT.arrays}, 0, np.ones(4, np.float32))
    return VersionedState.of(made, "0" * 16, EVENTS[-1].score, step.digest)


def record(*items: str, step: Step = OLD) -> UserRecord:
    events = tuple(EVENTS[n]._replace(item_id=item) for n, item in enumerate(items))
    return UserRecord("0" * 16, events, pack(state(step), LAYOUT))


def test_a_stored_state_of_another_step_is_used_only_where_it_holds() -> None:
    grown = served("e", OLD, NEW)
    assert Profile.of(USER, grown, record("0", "2")).base is not None
    assert Profile.of(USER, grown, record("0", "4")).base is None, "item 4 was unknown when it was made"
    assert Profile.of(USER, grown, record("0", "4", step=NEW)).base is not None
    assert Profile.of(USER, served("e", OLD), record("0", "2", step=NEW)).base is None


def test_a_cached_state_goes_to_a_model_with_the_same_encoder_and_to_no_other() -> None:
    profile = Profile.of(USER, served("e", OLD), record("0", "2"))
    assert profile.base is not None
    assert profile.under(served("e", OLD, NEW)).base is profile.base
    assert profile.under(served("other", OLD)).base is None
    assert Profile(USER, served("e", OLD), record("0", "4"), state(OLD)).under(served("e", OLD, NEW)).base is None


def test_a_new_state_names_the_first_step_that_has_its_items() -> None:
    grown = served("e", OLD, NEW)
    assert Profile.of(USER, grown, record("0", "nobody knows")).encoder_step() == OLD.digest
    assert Profile.of(USER, grown, record("0", "4")).encoder_step() == NEW.digest
