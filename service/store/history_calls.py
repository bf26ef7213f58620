"""The scripts of a subject's history with their keys and arguments, and what their replies mean. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from service.common.errors import StoreUnavailable
from service.store import lua_scripts as scripts
from service.store.left_ids import LEFT_IDS
from service.store.records import AppendResult, NewEvent, StateWrite, StoredEvent, Subject, UserRecord, parse_events
from service.store.redis.redis_link import ScriptCall
from service.store.seen_items import NOTHING_SEEN, SeenItems
from service.store.store_settings import StoreSettings
from service.store.user_features import READ_FEATURES, WRITE_FEATURES, UserFeatures, Values, pack

_ENCODERS_MAX = 16
# Follows the encoder version in the name of a checkpoint, which is stored beside the states.
CHECKPOINT = ":checkpoint"


class HistoryCalls:
    """Makes the calls of the scripts that read and write histories."""

    def __init__(self, settings: StoreSettings, erased: str) -> None:
        """Makes calls for these settings; erasures are published on the channel `erased`."""
        self._settings = settings
        self._erased = erased
        # The encoders of late, oldest first: an erasure deletes their states even if the list of states is lost.
        self._encoders: dict[str, None] = {}

    def read(self, subject: Subject, encoder_version: str, known: UserRecord | None) -> ScriptCall:
        """Reads what has changed since `known`, with the state for an encoder."""
        events, version, seen, features = self.keys(subject, "events", "version", "seen", "features")
        keys = (events, version, self._state_key(subject, encoder_version), seen, features)
        stamps = ("", b"") if known is None else (known.seen.stamp, known.features.stamp_bytes)
        return ScriptCall(scripts.READ, keys, ("" if known is None else known.version, *stamps))

    def read_log(self, subject: Subject) -> ScriptCall:
        """Reads everything that a merge moves."""
        return ScriptCall(scripts.READ_LOG, self.keys(subject, "events", "version", "signals", "seen", "features"), ())

    def read_checkpoint(self, subject: Subject, encoder_version: str) -> ScriptCall:
        """Reads the log with the checkpoint for an encoder in place of its state."""
        return self.read(subject, encoder_version + CHECKPOINT, None)

    def write_state(self, subject: Subject, encoder_version: str, state: StateWrite) -> ScriptCall:
        """Writes a state, and what is to become of its checkpoint."""
        settings, checkpoint = self._settings, state.checkpoint
        version, states, floor = self.keys(subject, "version", "states", "floor")
        keys = [version, self._state_key(subject, encoder_version), states]
        args: list[str | bytes | int] = [state.version, state.blob, settings.state_ttl_s * 1000, encoder_version]
        if checkpoint is not None:
            name = encoder_version + CHECKPOINT
            keys += [self._state_key(subject, name), floor]
            args += [
                name,
                checkpoint.blob,
                max(settings.ttl_s, settings.state_ttl_s) * 1000,
                f"{checkpoint.score:.17g}",
            ]
        return ScriptCall(scripts.WRITE_STATE, tuple(keys), tuple(args))

    def append(
        self,
        subject: Subject,
        events: Sequence[NewEvent],
        signals: Sequence[tuple[str, bytes]] = (),
        seen: SeenItems = NOTHING_SEEN,
        *,
        by_id: bool = True,
    ) -> ScriptCall:
        """Appends events, and signals and seen items of another subject.

        Args:
            subject: Whose log it is.
            events: New events, in any order.
            signals: Identity and body of each signal, as they were stored.
            seen: Items seen before the log.
            by_id: Whether an event with an id that is in the log, or has left it, is a duplicate, whatever else it
                says.
        """
        history = sorted((e for e in events if e.in_history), key=_time)
        others = [e for e in events if not e.in_history]
        settings, named = self._settings, any(event.event_id for event in history)
        args: list[str | bytes | int] = [
            settings.history_cap, settings.ttl_s * 1000, settings.signals_cap,
            settings.signals_ttl_s * 1000, len(history),
            scripts.IDS_KNOWN if by_id and named else 0,
            settings.seen_max, seen.entries, seen.count,
            LEFT_IDS if named else 0,
        ]  # fmt: skip
        for event in history:
            args += (event.time_ms, event.member(subject))
        for event in others:
            args += (event.identity(subject), _signal_body(event))
        for identity, body in signals:
            args += (identity, body)
        keys = self.keys(subject, "events", "version", "signals", "seen", "ids", "floor", "features")
        return ScriptCall(scripts.APPEND, keys, tuple(args))

    def erase(self, subject: Subject, expected: tuple[bytes, int, str, bytes] | None = None) -> ScriptCall:
        """Deletes every key of the subject.

        Args:
            subject: Who is erased.
            expected: Version of the log, number of signals, and stamps of the seen items and of the features that must
                still be there.
        """
        keys = self.keys(subject, "events", "version", "signals", "states", "seen", "ids", "floor", "features")
        unchanged = (0, "", 0, "", b"") if expected is None else (1, *expected)
        args = (self._state_key(subject, ""), self._erased, subject.tag, *unchanged, *self._encoders)
        return ScriptCall(scripts.ERASE, keys, args)

    def read_features(self, subject: Subject) -> ScriptCall:
        """Reads the features alone."""
        return ScriptCall(READ_FEATURES, self.keys(subject, "features"), ())

    def write_features(self, subject: Subject, values: Values, known: UserFeatures | None = None) -> ScriptCall:
        """Writes features in place of the stored ones; without values, deletes them.

        Args:
            subject: Whose they are.
            values: The features by name.
            known: What must be stored; None for anything.
        """
        stamp = b"*" if known is None else known.stamp_bytes
        args = (stamp, pack(values), self._settings.ttl_s * 1000)
        return ScriptCall(WRITE_FEATURES, self.keys(subject, "features"), args)

    def keys(self, subject: Subject, *names: str) -> tuple[str, ...]:
        """Returns the keys of a subject with these names."""
        stem = f"{self._settings.prefix}{subject.tag}:"
        return tuple([stem + name for name in names])

    def _state_key(self, subject: Subject, encoder_version: str) -> str:
        if encoder_version and encoder_version not in self._encoders:
            self._encoders[encoder_version] = None
            while len(self._encoders) > _ENCODERS_MAX:
                del self._encoders[next(iter(self._encoders))]
        return f"{self._settings.prefix}{subject.tag}:state:{encoder_version}"


def record_of(reply: Sequence[Any]) -> UserRecord | None:
    """Returns the record of a reply to `read`; None if nothing has changed.

    Raises:
        StoreUnavailable: The log contains members that this service did not write.
    """
    if len(reply) == 1:
        return None
    version, flat, blob, seen, features = reply
    return UserRecord(
        version.decode() if version else "",
        events_of(flat),
        blob,
        SeenItems.unpack(seen),
        UserFeatures.unpack(features),
    )


def events_of(flat: Sequence[bytes]) -> tuple[StoredEvent, ...]:
    """Returns the events of alternating members and scores.

    Raises:
        StoreUnavailable: The log contains members that this service did not write.
    """
    try:
        return parse_events(flat)
    except (ValueError, OverflowError) as error:
        raise StoreUnavailable("a log contains members that this service did not write") from error


def appended_of(reply: Sequence[Any]) -> AppendResult:
    """Returns the result of a reply to `append`."""
    accepted, duplicates, version, reused, stamp, late, _ = reply
    names = tuple(name.decode() for name in reused)
    return AppendResult(int(accepted), int(duplicates), version.decode(), names, stamp.decode(), int(late))


def replaced_by(reply: Sequence[Any]) -> int:
    """Returns how many keys of another type an `append` replaced."""
    return int(reply[-1])


def _time(event: NewEvent) -> int:
    return event.time_ms


def _signal_body(event: NewEvent) -> bytes:
    fields = {
        "type": event.type, "item_id": event.item_id, "time_ms": event.time_ms, "query": event.query,
        "value": event.value, "request_id": event.request_id, "list_id": event.list_id,
    }  # fmt: skip
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})
