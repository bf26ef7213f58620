"""The cache of what earlier runs computed: bounded in entries and bytes, and the least recently used go first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.engine.decode.bounded_cache import BoundedCache


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 5), st.integers(1, 30))
def test_it_holds_the_latest_that_fit(keys: list[int], entries_max: int, bytes_max: int) -> None:
    """Key n takes n bytes, and a value says how often its key was computed before."""
    cache: BoundedCache[int, int] = BoundedCache(entries_max, bytes_max)
    held: list[int] = []
    computed = dict.fromkeys(keys, 0)
    for key in keys:
        computed[key] += key not in held
        again = computed[key]
        assert cache.get(key, lambda again=again: again, lambda _, key=key: key) == computed[key]  # type: ignore[misc]
        held = [other for other in held if other != key] + [key]
        while len(held) > entries_max or sum(held) > bytes_max:
            held.pop(0)
        assert (len(cache), cache.nbytes) == (len(held), sum(held))
