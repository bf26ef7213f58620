"""From the ids that callers send to those under which something is kept.

Without a key they are the same. With one (`GPT4REC_HASH_USER_IDS`) a user, a session and an event are known by an
HMAC-SHA-256 of their id from here on, in Redis as in memory: whoever has the data and not the key can neither read
whose they are, nor try ids out.
"""

from __future__ import annotations

import hashlib
import hmac

from pydantic import SecretStr

from service.common.errors import SettingsError
from service.store.records import Kind, Subject

# 128 bits: two of 2^64 users would share a name.
_DIGITS = 32
_KEY_LEAST = 16


class Pseudonyms:
    """Raises SettingsError: a key that is too short to be one."""

    def __init__(self, key: SecretStr | None = None) -> None:
        secret = key.get_secret_value() if key is not None else ""
        if 0 < len(secret) < _KEY_LEAST:
            raise SettingsError(f"GPT4REC_HASH_USER_IDS: a key of fewer than {_KEY_LEAST} characters protects nothing")
        self._key = secret.encode()

    def subject(self, user_id: str | None, session_id: str | None) -> Subject | None:
        """Whose history it is: the user where both are named, None where neither is."""
        if user_id is not None:
            return self.named("user", user_id)
        return self.named("session", session_id) if session_id is not None else None

    def named(self, kind: Kind, given: str) -> Subject:
        return Subject(kind, self._hashed(kind, given) if self._key else given)

    def event_id(self, given: str | None) -> str | None:
        """Callers may have put an id of the user into it."""
        return given if given is None or not self._key else self._hashed("event", given)

    def traces(self, user_id: str) -> list[Subject]:
        """All that may have been kept of a user: with a key also what was before there was one."""
        subject, plain = self.named("user", user_id), Subject("user", user_id)
        return [subject] if subject == plain else [subject, plain]

    def _hashed(self, kind: str, given: str) -> str:
        # The kind is no part of an id: a session must not be taken for a user, nor an event for either.
        text = f"{kind}\0{given}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:_DIGITS]
