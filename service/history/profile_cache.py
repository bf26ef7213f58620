"""Profiles kept in the process, the least recently used go first; bounded by bytes.

A profile from here is only used after Redis has said, in the request's one round trip, that its version is still the
log's. So nothing here can be stale, whichever replica wrote the log.
"""

from __future__ import annotations

from collections import OrderedDict

from service.history.profile import Profile
from service.lifecycle.served_model import ServedModel
from service.store.records import Subject


class ProfileCache:
    """Not thread-safe: it lives on the event loop."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._profiles: OrderedDict[Subject, tuple[Profile, int]] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._profiles)

    def get(self, subject: Subject, model: ServedModel) -> Profile | None:
        """The subject's profile, if it is this very model's: another catalogue sees other items in a history."""
        found = self._profiles.get(subject)
        if found is None or found[0].model is not model:
            return None
        self._profiles.move_to_end(subject)
        return found[0]

    def put(self, profile: Profile) -> None:
        """Keeps a profile in the place of its subject's former one; also to be called when it has grown."""
        assert profile.subject is not None  # noqa: S101 - nobody's history is not kept
        self.drop(profile.subject)
        size = profile.nbytes
        if not profile.record.events or size > self._bytes_max:
            return
        self._profiles[profile.subject] = (profile, size)
        self.nbytes += size
        while self.nbytes > self._bytes_max:
            _, (_, freed) = self._profiles.popitem(last=False)
            self.nbytes -= freed

    def profiles(self) -> list[Profile]:
        """All of them, as they are now."""
        return [profile for profile, _ in self._profiles.values()]

    def clear(self) -> None:
        """Another catalogue is served: what is here would only hold the old one in memory."""
        self._profiles.clear()
        self.nbytes = 0

    def keep_only(self, model: ServedModel) -> None:
        """What requests that ended late have put here for a former model goes."""
        for subject in [subject for subject, (profile, _) in self._profiles.items() if profile.model is not model]:
            self.drop(subject)

    def drop(self, subject: Subject) -> None:
        _, freed = self._profiles.pop(subject, (None, 0))
        self.nbytes -= freed
