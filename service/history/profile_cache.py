"""An LRU cache of profiles in this process, bounded by bytes.

A cached profile is used only after Redis has confirmed, in the request's one round trip, that its version is still the
version of the log. So a cache hit is never stale, whichever replica wrote the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from service.history.profile import Profile
from service.lifecycle.served_model import ServedModel
from service.store.records import Subject


class ProfileCache:
    """Maps subjects to profiles. Not thread-safe: use it from the event loop only.

    Attributes:
        nbytes: Estimated memory of all cached profiles.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._profiles: OrderedDict[Subject, tuple[Profile, int]] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._profiles)

    def get(self, subject: Subject, model: ServedModel) -> Profile | None:
        """Returns the subject's profile if it belongs to this model: indices differ from catalogue to catalogue."""
        entry = self._profiles.get(subject)
        if entry is None or entry[0].model is not model:
            return None
        self._profiles.move_to_end(subject)
        return entry[0]

    def put(self, profile: Profile) -> None:
        """Caches a profile in place of the subject's earlier one. Call it again when a cached profile has grown."""
        assert profile.subject is not None  # noqa: S101 - a profile without a subject is never cached
        self.drop(profile.subject)
        size = profile.nbytes
        if not profile.record.events or size > self._bytes_max:
            return
        self._profiles[profile.subject] = (profile, size)
        self.nbytes += size
        while self.nbytes > self._bytes_max:
            _, (_, freed) = self._profiles.popitem(last=False)
            self.nbytes -= freed

    def measure(self, profile: Profile) -> None:
        """Counts the memory of a profile again, if it is cached and has grown since."""
        if not profile.has_grown():
            return
        entry = None if profile.subject is None else self._profiles.get(profile.subject)
        if entry is not None and entry[0] is profile and entry[1] != profile.nbytes:
            self.put(profile)

    def profiles(self) -> list[Profile]:
        """Returns all cached profiles, the least recently used first."""
        return [profile for profile, _ in self._profiles.values()]

    def clear(self) -> None:
        """Drops everything, because another catalogue is served: old profiles would keep the old one in memory."""
        self._profiles.clear()
        self.nbytes = 0

    def keep_only(self, models: Sequence[ServedModel]) -> None:
        """Drops the profiles of other models, which late requests may have added after a model was let go."""
        kept = {id(model) for model in models}
        for subject in [subject for subject, (profile, _) in self._profiles.items() if id(profile.model) not in kept]:
            self.drop(subject)

    def drop(self, subject: Subject) -> None:
        """Removes the subject's profile, if it is cached."""
        _, freed = self._profiles.pop(subject, (None, 0))
        self.nbytes -= freed
