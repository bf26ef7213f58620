"""Maps the ids that callers send to the ids under which data is stored.

Without a key both are the same. With a key (`GPT4REC_HASH_USER_IDS`), users, sessions and events are stored under an
HMAC-SHA-256 of their id, in Redis and in memory. Without the key, nobody can tell from the data whose it is, nor test
guessed ids against it.
"""

from __future__ import annotations

import hashlib
import hmac

from pydantic import SecretStr

from service.artifact.session_marks import mark_of
from service.common.errors import SettingsError
from service.store.records import Kind, Subject

# Hex digits, 128 bits: a collision is expected only among about 2^64 users.
_DIGITS = 32
_KEY_LENGTH_MIN = 16


class Pseudonyms:
    """Creates subjects and event ids from the ids of callers.

    Raises:
        SettingsError: The key is too short.
    """

    def __init__(self, key: SecretStr | None = None) -> None:
        secret = key.get_secret_value() if key is not None else ""
        if 0 < len(secret) < _KEY_LENGTH_MIN:
            raise SettingsError(f"GPT4REC_HASH_USER_IDS: use a key of at least {_KEY_LENGTH_MIN} characters")
        self._key = secret.encode()

    def subject(self, user_id: str | None, session_id: str | None) -> Subject | None:
        """Returns the owner of the history: the user if both ids are given, None if neither is."""
        if user_id is not None:
            return self.named("user", user_id)
        return self.named("session", session_id) if session_id is not None else None

    def named(self, kind: Kind, caller_id: str) -> Subject:
        """Returns the subject of a user id or a session id."""
        return Subject(kind, self._hashed(kind, caller_id) if self._key else caller_id)

    def event_id(self, caller_id: str | None) -> str | None:
        """Returns the stored id of an event. It is hashed too, because callers may build it from a user id."""
        return caller_id if caller_id is None or not self._key else self._hashed("event", caller_id)

    def session_mark(self, caller_id: str | None) -> str:
        """Returns the mark of the session of an event as its history keeps it; "" without one."""
        if caller_id is None:
            return ""
        return mark_of(self._hashed("session", caller_id) if self._key else caller_id)

    def traces(self, user_id: str) -> list[Subject]:
        """Returns all subjects a user may be stored under: with a key, also the plain id from before it was set."""
        subject, plain = self.named("user", user_id), Subject("user", user_id)
        return [subject] if subject == plain else [subject, plain]

    def _hashed(self, kind: str, caller_id: str) -> str:
        # The kind is hashed as well, so that equal ids of a user, a session and an event get different hashes.
        text = f"{kind}\0{caller_id}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:_DIGITS]
