"""Strings of a large catalogue without an object for each: a UTF-8 buffer with offsets, and a lookup by hash.

Everything is held in arrays, so it can be mapped from a file and shared between processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Array

T = TypeVar("T")

# Up to this many strings, a dictionary costs little to build and is the faster lookup.
SMALL = 65_536
_ENCODING = ("utf-8", "surrogatepass")


class Rows(Sequence[T]):
    """A sequence of `length` values, each of which is built when it is accessed."""

    def __init__(self, length: int, value: Callable[[int], T]) -> None:
        self._length, self._value = length, value

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self._value(i) for i in range(*at.indices(self._length))]
        if not -self._length <= at < self._length:
            raise IndexError(f"row {at} is out of range: there are {self._length}")
        return self._value(at % self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Texts(Rows[str]):
    """A column of n strings.

    Attributes:
        data: [bytes] uint8, the strings in UTF-8 one after the other.
        offsets: [n + 1] int64 bounds of each string in `data`.
    """

    def __init__(self, data: Array, offsets: Array) -> None:
        """Raises ValueError if the arrays are not such a column."""
        if data.dtype != np.uint8 or offsets.dtype != np.int64 or data.ndim != 1 or offsets.ndim != 1:
            raise ValueError("texts are uint8 bytes and int64 offsets")
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
            raise ValueError("the offsets of the texts do not fit their bytes")
        super().__init__(len(offsets) - 1, self.text)
        self.data, self.offsets = data, offsets
        self._bytes, self._at = data.data, offsets.data

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Builds a column of these strings."""
        encoded = [text.encode(*_ENCODING) for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter((len(raw) for raw in encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def raw(self, at: int) -> bytes:
        """Returns the string at place `at`, in UTF-8."""
        return self._bytes[self._at[at] : self._at[at + 1]].tobytes()

    def text(self, at: int) -> str:
        """Returns the string at place `at`."""
        return str(self._bytes[self._at[at] : self._at[at + 1]], *_ENCODING)

    def __iter__(self) -> Iterator[str]:
        return (self.text(at) for at in range(len(self)))

    def arrays(self, name: str) -> dict[str, Array]:
        """Returns the column as arrays, whose names begin with `name`."""
        return {f"{name}_bytes": self.data, f"{name}_offsets": self.offsets}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], name: str) -> Texts:
        """Reads what `arrays` returned. Raises KeyError or ValueError for anything else."""
        return cls(arrays[f"{name}_bytes"], arrays[f"{name}_offsets"])


class TextIndex(Mapping[str, int]):
    """Maps each string of a column to its place.

    A few strings are held in a dictionary. Many are looked up by hash: `start` [2^b + 1] int32 bounds the bucket of
    crc32(string) mod 2^b in `place` [n] int32. The places found last are cached in a bounded dictionary, because a few
    items have most of the events.
    """

    def __init__(self, texts: Texts, start: npt.NDArray[np.int32], place: npt.NDArray[np.int32]) -> None:
        self._texts = texts
        self._found: dict[str, int] = {}
        self._small = len(texts) <= SMALL
        if self._small:
            self._found = {text: at for at, text in enumerate(texts)}
            return
        if start.dtype != np.int32 or place.dtype != np.int32 or len(place) != len(texts) or len(start) < 2:
            raise ValueError("the index does not fit its texts")
        self.start, self.place = start, place
        self._start, self._place = start.data, place.data
        self._mask = len(start) - 2

    @classmethod
    def of(cls, texts: Texts) -> TextIndex:
        """Builds the index of a column."""
        none = np.zeros(0, np.int32)
        if len(texts) <= SMALL:
            return cls(texts, none, none)
        n_buckets = 1 << (len(texts) - 1).bit_length()
        bucket = np.fromiter((zlib.crc32(texts.raw(at)) for at in range(len(texts))), np.int64, len(texts))
        bucket &= n_buckets - 1
        start = np.zeros(n_buckets + 1, np.int32)
        np.cumsum(np.bincount(bucket, minlength=n_buckets), out=start[1:])
        return cls(texts, start, np.argsort(bucket, kind="stable").astype(np.int32))

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the place of a string, or `default`."""
        place = self._found.get(key)
        if place is None and not self._small:
            place = self._find(key)
        return default if place is None else place

    def _find(self, key: str) -> int | None:
        raw = key.encode(*_ENCODING)
        bucket = zlib.crc32(raw) & self._mask
        for slot in range(self._start[bucket], self._start[bucket + 1]):
            at: int = self._place[slot]
            if self._texts.raw(at) == raw:
                if len(self._found) >= SMALL:
                    self._found.clear()
                self._found[key] = at
                return at
        return None

    def __getitem__(self, key: str) -> int:
        place: int | None = self.get(key)
        if place is None:
            raise KeyError(key)
        return place

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def arrays(self, name: str) -> dict[str, Array]:
        """Returns the index as arrays, whose names begin with `name`; none for a dictionary, which is built anew."""
        return {} if self._small else {f"{name}_start": self.start, f"{name}_place": self.place}

    @classmethod
    def from_arrays(cls, texts: Texts, arrays: Mapping[str, Array], name: str) -> TextIndex:
        """Reads what `arrays` returned. Raises KeyError or ValueError for anything else."""
        if len(texts) <= SMALL:
            return cls.of(texts)
        return cls(texts, arrays[f"{name}_start"], arrays[f"{name}_place"])
