"""Reads the histories that are encoded behind the answers, and stores their new states, many in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.common import logs
from service.common.errors import StoreUnavailable
from service.history import state_blob
from service.history.profile import Profile
from service.history.state_keeper import StateKeeper
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.store.records import CheckpointWrite, StateWrite, Subject, UserRecord
from service.store.store import Store

log = logs.get(__name__)


class StateWriter:
    """The store's side of encoding behind the answers."""

    def __init__(self, keeper: StateKeeper, store: Store, metrics: Metrics) -> None:
        self._keeper, self._store, self._metrics = keeper, store, metrics

    async def profiles(self, subjects: Mapping[Subject, ServedModel], *, trust_cache: bool) -> list[Profile]:
        """Returns the profiles of the subjects, reading with one round trip for each model.

        Args:
            subjects: The subjects, and the models that answer them.
            trust_cache: Whether cached histories are known to be as they are stored; otherwise they are compared.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        profiles: list[Profile] = []
        missing: list[tuple[Subject, ServedModel, Profile | None]] = []
        for subject, model in subjects.items():
            cached = self._keeper.cache.get(subject, model)
            if cached is not None and trust_cache:
                profiles.append(cached)
            else:
                missing.append((subject, model, cached))
        for model in {model.version: model for _, model, _ in missing}.values():
            part = [(subject, cached) for subject, its_model, cached in missing if its_model.version == model.version]
            profiles += await self._read(part, model)
        return profiles

    async def _read(self, part: Sequence[tuple[Subject, Profile | None]], model: ServedModel) -> list[Profile]:
        wanted: list[tuple[Subject, UserRecord | None]] = [
            (subject, None if cached is None else cached.record) for subject, cached in part
        ]
        epoch = self._keeper.erasure_epoch
        try:
            records = await self._store.read_many(wanted, _encoder(model))
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        found = []
        for (subject, cached), record in zip(part, records, strict=True):
            if record is not None:
                found.append(self._keeper.add(subject, model, record, epoch))
            elif cached is not None:
                found.append(cached)
        return found

    async def store(self, profiles: Sequence[Profile]) -> None:
        """Stores the states of the profiles, and the checkpoints that are due. One that is outdated is left out.

        Raises:
            StoreUnavailable: Some may not be stored.
        """
        await asyncio.gather(*(self._keeper.advance_checkpoint(p) for p in profiles))
        for version in {_encoder(p.model) for p in profiles}:
            packed = [
                (p, entry) for p in profiles if _encoder(p.model) == version and (entry := _packed(p)) is not None
            ]
            bases = [p.base for p, _ in packed]
            try:
                stored = await self._store.write_states([entry for _, entry in packed], version)
            except StoreUnavailable:
                self._metrics.redis_errors.labels("write_state").inc()
                raise
            for (profile, _), base, written in zip(packed, bases, stored, strict=True):
                if written and base is not None and base.checkpoint is not None:
                    self._keeper.replace_base(profile, base, replace(base, checkpoint=None))
            self._metrics.state_cache.labels("state", "stored").inc(sum(stored))
            self._metrics.state_cache.labels("state", "lost").inc(len(stored) - sum(stored))


def _encoder(model: ServedModel) -> str:
    """The encoder version, which is part of the keys of states."""
    return model.encoder_version.name


def _packed(profile: Profile) -> tuple[Subject, StateWrite] | None:
    """The state with its checkpoint; None for a malformed state, which must not stop the others."""
    base, layout = profile.base, profile.model.engine.state_layout
    if base is None or profile.subject is None:
        return None
    try:
        checkpoint = None
        if layout.remembers_trimmed:
            new = base.checkpoint
            checkpoint = (
                CheckpointWrite() if new is None else CheckpointWrite(state_blob.pack(new, layout), new.last_score)
            )
        return profile.subject, StateWrite(base.version, state_blob.pack(base, layout), checkpoint)
    except ValueError as error:
        log.error("state_not_packed", **logs.where(error))
        return None
