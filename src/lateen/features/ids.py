"""Sample ids by the million: UTF-8 in one buffer, found again by sorted hashes.

A list of strings takes about 60 bytes an id beside its text; :class:`Ids` takes four. Ids are
looked up by 64-bit hashes, and every match is compared byte by byte, so that a collision costs a
moment and never joins two samples.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsIndex, overload

import numpy as np

Array = np.ndarray[Any, Any]
_CHUNK = 65536  # ids hashed or looked up at a time
_STRINGS = 4096  # ids that are strings at a time
_COPY = 2**18  # bytes copied at a time: each has an index of eight meanwhile
_WORD = 8  # bytes hashed and compared at a time, and zeros after the last id to read past it
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(_WORD + 1)], np.uint64)  # the first n bytes
# Odd numbers without pattern: the golden ratio, and those of SplitMix64 (Steele et al. 2014).
_STEP, _FIRST, _SECOND = map(
    np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class Ids(Sequence[str]):
    """Sample ids, as a list of strings is in all but size: it equals the list of the same ids.

    >>> ids = Ids.of(["a.jpg", "b.jpg", "ü.jpg"])
    >>> ids[2], ids[:2] == ["a.jpg", "b.jpg"], list(ids.take([2, 0]))
    ('ü.jpg', True, ['ü.jpg', 'a.jpg'])

    Args:
        text: ``[bytes]`` uint8: the ids' UTF-8, one after the other, and 8 more bytes.
        offsets: ``[n + 1]`` id i is ``text[offsets[i]:offsets[i + 1]]``.
    """

    def __init__(self, text: Array, offsets: Array) -> None:
        self._text = text
        self._offsets = offsets

    @classmethod
    def of(cls, ids: Iterable[str]) -> Ids:
        """Ids from strings."""
        if isinstance(ids, Ids):
            return ids
        ids = list(ids)
        if (letters := "".join(ids)).isascii():  # then a character is a byte: thrice as fast
            text = np.frombuffer(letters.encode("ascii") + bytes(_WORD), np.uint8)
            return cls(text, _offsets(np.fromiter(map(len, ids), np.int64, len(ids))))
        encoded = [_bytes(sample) for sample in ids]
        text = np.frombuffer(b"".join([*encoded, bytes(_WORD)]), np.uint8)
        return cls(text, _offsets(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    @classmethod
    def joined(cls, parts: Sequence[Ids]) -> Ids:
        """The ids of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        spans = [part._text[part._offsets[0] : part._offsets[-1]] for part in parts]
        text = np.concatenate([*spans, np.zeros(_WORD, np.uint8)])
        lengths = (part._lengths().astype(np.int32) for part in parts)
        return cls(text, _offsets(np.concatenate([np.empty(0, np.int32), *lengths])))

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return int(self._text.nbytes + self._offsets.nbytes)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _STRINGS):
            yield from self._strings(start, min(start + _STRINGS, len(self)))

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Ids: ...
    def __getitem__(self, row: SupportsIndex | slice) -> str | Ids:
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            return Ids(self._text, self._offsets[start : max(start, stop) + 1])
        at = operator.index(row)
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError(f"there is no id {row} among {len(self)}")
        return self._strings(at, at + 1)[0]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ids):
            return np.array_equal(self._lengths(), other._lengths()) and np.array_equal(
                self._text[self._offsets[0] : self._offsets[-1]],
                other._text[other._offsets[0] : other._offsets[-1]],
            )
        if isinstance(other, list):
            return len(self) == len(other) and all(map(operator.eq, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __add__(self, other: Sequence[str]) -> list[str]:
        return [*self, *other]

    def __radd__(self, other: Sequence[str]) -> list[str]:
        return [*other, *self]

    def __repr__(self) -> str:
        more = f", … {len(self):,} in all" if len(self) > 10 else ""
        return f"[{', '.join(map(repr, self[:10]))}{more}]"

    def take(self, rows: Sequence[int] | Array) -> Ids:
        """The ids of these rows ``[k]``, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        if len(index) == len(self) and np.array_equal(index, np.arange(len(self))):
            return self
        starts = self._offsets[:-1][index]
        offsets = _offsets(self._offsets[1:][index] - starts)
        text = np.zeros(int(offsets[-1]) + _WORD, np.uint8)
        for first, last in _spans(offsets, _COPY):
            begin, end = offsets[first], offsets[last]
            shift = starts[first:last].astype(np.int64) - offsets[first:last]
            at = np.repeat(shift, np.diff(offsets[first : last + 1]))
            at += np.arange(begin, end)
            text[begin:end] = self._text[at]
        return Ids(text, offsets)

    def hashes(self) -> Array:
        """A hash of every id ``[n]``, uint64: equal for equal ids."""
        hashes = np.empty(len(self), np.uint64)
        for start in range(0, len(self), _CHUNK):
            part = self[start : start + _CHUNK]
            hashes[start : start + len(part)] = _hashes(part)
        return hashes

    def same(self, rows: Array, other: Ids, other_rows: Array) -> Array:
        """Which of these rows ``[k]`` have the ids that other ids have in theirs ``[k]``."""
        starts, lengths = self._bounds(rows)
        other_starts, other_lengths = other._bounds(other_rows)
        same: Array = lengths == other_lengths
        at, done = np.flatnonzero(same), 0
        while at.size:
            rest = lengths[at] - done
            differ = self._words(starts[at] + done, rest) != other._words(
                other_starts[at] + done, rest
            )
            same[at[differ]] = False
            at, done = at[~differ & (rest > _WORD)], done + _WORD
        return same

    def _bounds(self, rows: Array | slice) -> tuple[Array, Array]:
        """Where these ids begin, and their lengths in bytes, int64."""
        starts = self._offsets[:-1][rows].astype(np.int64)
        return starts, self._offsets[1:][rows] - starts

    def _words(self, starts: Array, rest: Array) -> Array:
        """The eight bytes from each start on, those beyond the ``rest`` first as zeros, uint64."""
        every = np.ndarray((len(self._text) - _WORD + 1,), "<u8", self._text.data, strides=(1,))
        words: Array = every[starts] & _KEEP[np.minimum(rest, _WORD)]
        return words

    def _lengths(self) -> Array:
        return np.diff(self._offsets)

    def _strings(self, start: int, stop: int) -> list[str]:
        offsets = self._offsets[start : stop + 1]
        text = self._text[offsets[0] : offsets[-1]].tobytes()
        spans = itertools.pairwise((offsets - offsets[0]).tolist())
        if text.isascii():
            letters = text.decode("ascii")
            return [letters[first:last] for first, last in spans]
        return [text[first:last].decode("utf-8", "surrogatepass") for first, last in spans]


class IdIndex:
    """Finds the rows of ids; it takes twelve bytes an id.

    Args:
        ids: to find. Where one stands twice, its first row is found.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        hashes = ids.hashes()
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = order.astype(_whole(len(ids)))

    def find(self, ids: Ids) -> Array:
        """The row ``[len(ids)]`` of each id, −1 of one that is not there."""
        rows = np.empty(len(ids), self._rows.dtype)
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            rows[start : start + len(part)] = self._find(part)
        return rows

    def lacking(self, ids: Ids) -> Array:
        """The rows, in order, of those of ``ids`` that are not there."""
        return np.flatnonzero(self.find(ids) < 0)

    def _find(self, ids: Ids) -> Array:
        hashes = ids.hashes()
        order = np.argsort(hashes)
        at = np.empty(len(ids), np.int64)
        at[order] = np.searchsorted(self._hashes, hashes[order])  # in order: thrice as fast
        rows = np.full(len(ids), -1, self._rows.dtype)
        sought = np.arange(len(ids))
        while True:
            sought = sought[at[sought] < len(self._hashes)]
            sought = sought[self._hashes[at[sought]] == hashes[sought]]
            if not sought.size:
                return rows
            candidates = self._rows[at[sought]]
            same = self._ids.same(candidates, ids, sought)
            rows[sought[same]] = candidates[same]
            sought = sought[~same]  # another id of that hash: the next one may be it
            at[sought] += 1

    def repeats(self) -> Array:
        """The rows, in order, whose id an earlier row has too."""
        alike = self._hashes[1:] == self._hashes[:-1]
        rows = self._rows[np.flatnonzero(np.append(alike, False) | np.append(False, alike))]
        rows.sort()
        repeats: Array = rows[self.find(self._ids.take(rows)) != rows]
        return repeats


def _hashes(ids: Ids) -> Array:
    """A hash of every id, uint64, from its length and its words of eight bytes in turn."""
    starts, lengths = ids._bounds(slice(None))
    hashes = lengths.astype(np.uint64) * _STEP
    at, done = np.flatnonzero(lengths), 0
    while at.size:
        rest = lengths[at] - done
        mixed = (hashes[at] ^ ids._words(starts[at] + done, rest)) * _STEP
        hashes[at] = mixed ^ (mixed >> np.uint64(32))
        at, done = at[rest > _WORD], done + _WORD
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * factor
    return hashes


def _bytes(sample: str) -> bytes:
    return sample.encode("utf-8", "surrogatepass")  # file names can hold half characters


def _whole(largest: int) -> type[np.signedinteger[Any]]:
    return np.int32 if largest < 2**31 else np.int64


def _offsets(lengths: Array) -> Array:
    offsets = np.zeros(len(lengths) + 1, _whole(int(lengths.sum(dtype=np.int64))))
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _spans(offsets: Array, size: int) -> Iterator[tuple[int, int]]:
    """Ids from ``first`` to before ``last``, about ``size`` bytes at a time."""
    first = 0
    while first < len(offsets) - 1:
        beyond = int(np.searchsorted(offsets, int(offsets[first]) + size, side="right")) - 1
        last = max(first + 1, beyond)
        yield first, last
        first = last
