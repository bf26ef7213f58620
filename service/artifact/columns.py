"""Strings of a large catalogue without an object for each: a UTF-8 buffer with offsets, and a lookup by hash.

Everything is arrays, so it is mapped from a file and shared between processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Array

T = TypeVar("T")

# Up to this many strings a dictionary costs little to build and is the faster lookup.
SMALL = 65_536
_ENCODING = ("utf-8", "surrogatepass")


class Rows(Sequence[T]):
    """`length` values that are made when they are asked for."""

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
            raise IndexError(f"no row {at} among {self._length}")
        return self._value(at % self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Texts(Rows[str]):
    """[n] strings: `data` [bytes] uint8 and `offsets` [n + 1] int64 into it."""

    def __init__(self, data: Array, offsets: Array) -> None:
        """Raises ValueError where the arrays are not such a column."""
        if data.dtype != np.uint8 or offsets.dtype != np.int64 or data.ndim != 1 or offsets.ndim != 1:
            raise ValueError("texts are uint8 bytes and int64 offsets")
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
            raise ValueError("the offsets of the texts do not fit their bytes")
        super().__init__(len(offsets) - 1, self.text)
        self.data, self.offsets = data, offsets
        self._bytes, self._at = data.data, offsets.data

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        encoded = [text.encode(*_ENCODING) for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter((len(raw) for raw in encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def raw(self, at: int) -> bytes:
        return self._bytes[self._at[at] : self._at[at + 1]].tobytes()

    def text(self, at: int) -> str:
        return str(self._bytes[self._at[at] : self._at[at + 1]], *_ENCODING)

    def __iter__(self) -> Iterator[str]:
        return (self.text(at) for at in range(len(self)))

    def arrays(self, name: str) -> dict[str, Array]:
        return {f"{name}_bytes": self.data, f"{name}_offsets": self.offsets}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], name: str) -> Texts:
        """Raises KeyError or ValueError for arrays that `arrays` did not make."""
        return cls(arrays[f"{name}_bytes"], arrays[f"{name}_offsets"])


class TextIndex(Mapping[str, int]):
    """String → its place in a column.

    Few strings are a dictionary. Many are looked up by hash: `start` [2^b + 1] int32 bounds the bucket of
    crc32(string) mod 2^b in `place` [n] int32; what was found is kept in a bounded dictionary, as a few items
    have most of the events.
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
        """The place of a string, or `default`."""
        found = self._found.get(key)
        if found is None and not self._small:
            found = self._find(key)
        return default if found is None else found

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
        found: int | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def arrays(self, name: str) -> dict[str, Array]:
        return {} if self._small else {f"{name}_start": self.start, f"{name}_place": self.place}

    @classmethod
    def from_arrays(cls, texts: Texts, arrays: Mapping[str, Array], name: str) -> TextIndex:
        """Raises KeyError or ValueError for arrays that `arrays` did not make."""
        if len(texts) <= SMALL:
            return cls.of(texts)
        return cls(texts, arrays[f"{name}_start"], arrays[f"{name}_place"])
