"""Which images a model was trained on, and which chose its best step, as hashes of ids and bytes.

A hash is 64 bits of BLAKE2b: of an id, or of the encoded bytes of an image file. Up to
:data:`EXACT` hashes are kept sorted, 8 bytes each; more become a Bloom filter (Bloom 1970) of at
most 2 bytes a hash, which takes :data:`FALSE_POSITIVES` of the images it has never seen for known
ones and misses none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lateen.data.fingerprint import hash64
from lateen.features import Pairs, StoreRows
from lateen.features.ids import IdIndex, Ids
from lateen.model.records import open_record, write_record
from lateen.progress import log
from lateen.report.chance import most_by_chance

TRAINED_ON = "trained_on.npz"
"""The file of a model's folder that the record is in."""
EXACT = 2_000_000
"""The most hashes that are kept as they are: 16 MB."""
FALSE_POSITIVES = 0.001
"""Share of foreign hashes that a filter takes for its own."""

Array = np.ndarray[Any, Any]
_VERSION = 1
_BITS_EACH = 10  # bits of a filter that each hash sets
# Bits for each hash at which so many places give the share above: -k / ln(1 - p^(1/k)).
_BITS = -_BITS_EACH / math.log1p(-(FALSE_POSITIVES ** (1 / _BITS_EACH)))
_CHUNK = 1 << 20  # hashes at a time
# Names that anyone's images may have: a number, or a word that every camera and script writes.
# Numbers of ten digits and more (Flickr's, COCO's) are not counted up from 0.
_ANYONES = re.compile(
    r"(?:image|images|img|photo|picture|pic|frame|dsc|dscn|scan|sample|row|item|file|train|test|"
    r"val|s)?[\W_]*\d{0,9}\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class HashSet:
    """64-bit hashes: themselves, or a Bloom filter of them.

    Attributes:
        values: ``[n]`` uint64, sorted; or ``[bytes]`` uint8, the filter's bits.
    """

    values: Array

    @classmethod
    def of(cls, hashes: Array, *, exact: int = EXACT) -> HashSet:
        """The set of some hashes; a filter where there are more than ``exact`` different ones.

        Args:
            hashes: ``[n]``, uint64, in any order.
            exact: the most that are kept as they are.
        """
        ordered = np.sort(hashes)  # NumPy's unique is many times slower on random numbers
        different = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
        if len(different) <= exact:
            return cls(different)
        bits = np.zeros(math.ceil(len(different) * _BITS / 8), np.uint8)
        for start in range(0, len(different), _CHUNK):
            for bit in _bits_of(different[start : start + _CHUNK], 8 * len(bits)):
                np.bitwise_or.at(bits, bit >> 3, np.uint8(1) << (bit & 7).astype(np.uint8))
        return cls(bits)

    @property
    def is_exact(self) -> bool:
        """Whether no foreign hash is taken for one of these."""
        return bool(self.values.dtype == np.uint64)

    def has(self, hashes: Array) -> Array:
        """Which of ``hashes`` ``[n]`` are in the set, bool ``[n]``."""
        if self.is_exact:
            return _in_sorted(hashes, self.values)
        inside = np.ones(len(hashes), bool)
        for start in range(0, len(hashes), _CHUNK):
            some = slice(start, start + _CHUNK)
            for bit in _bits_of(hashes[some], 8 * len(self.values)):
                inside[some] &= (self.values[bit >> 3] >> (bit & 7).astype(np.uint8)) & 1 == 1
        return inside

    def by_mistake(self, asked: Array) -> float:
        """How many foreign hashes are taken for known ones, on average, if ``asked`` (bool) are."""
        return 0.0 if self.is_exact else FALSE_POSITIVES * int(asked.sum())


def _in_sorted(hashes: Array, values: Array) -> Array:
    if not len(values):
        return np.zeros(len(hashes), bool)
    order = np.argsort(hashes)  # near hashes are then looked for near each other
    ordered = hashes[order]
    at = np.searchsorted(values, ordered).clip(max=len(values) - 1)
    inside = np.empty(len(hashes), bool)
    inside[order] = values[at] == ordered
    return inside


def _bits_of(hashes: Array, bits: int) -> Sequence[Array]:
    """The bits that stand for each hash ``[n]``, :data:`_BITS_EACH` times: splitmix64 of the hash
    and a counter (Steele et al. 2014), modulo the number of bits."""
    step = np.uint64(0x9E3779B97F4A7C15)
    positions = []
    with np.errstate(over="ignore"):
        for count in range(1, _BITS_EACH + 1):
            z = hashes + np.uint64(count) * step
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            positions.append(((z ^ (z >> np.uint64(31))) % np.uint64(bits)).astype(np.int64))
    return positions


def hash_ids(ids: Sequence[str]) -> Array:
    """A hash of each id, uint64 ``[n]``."""
    hashes = (hash64(sample.encode("utf-8", "surrogatepass")) for sample in ids)
    return np.fromiter(hashes, np.uint64, len(ids))


def is_anyones(sample: str) -> bool:
    """Whether an id is of a kind that other images have too: ``17``, ``cats/0017.jpg``, ``img_3``.

    Two images with one such id may be any two images.
    """
    return _ANYONES.fullmatch(PurePosixPath(sample).stem) is not None


@dataclass(frozen=True)
class ImageGroup:
    """Images, as hashes.

    Attributes:
        count: how many.
        without_hash: of how many the bytes were not known, but only the id.
        ids: hashes of their ids.
        images: hashes of the bytes of their files.
    """

    count: int
    without_hash: int
    ids: HashSet
    images: HashSet

    @classmethod
    def of(cls, ids: Sequence[str], hashes: Array, *, exact: int = EXACT) -> ImageGroup:
        """Of images with these ids.

        Args:
            ids: ``n`` of them.
            hashes: ``[n]`` uint64 of the images' bytes, 0 where not known.
            exact: see :class:`HashSet`.
        """
        known = hashes[hashes != 0]
        return cls(
            len(ids), len(ids) - len(known), HashSet.of(hash_ids(ids), exact=exact),
            HashSet.of(known, exact=exact),
        )  # fmt: skip

    @property
    def is_exact(self) -> bool:
        """Whether all hashes are kept as they are."""
        return self.ids.is_exact and self.images.is_exact

    def __or__(self, other: ImageGroup) -> ImageGroup:
        """The images of both groups, which must be exact; one with one id in both is one image."""
        ids = np.union1d(self.ids.values, other.ids.values)
        images = np.union1d(self.images.values, other.images.values)
        unknown = min(self.without_hash + other.without_hash, len(ids))
        return ImageGroup(len(ids), unknown, HashSet.of(ids), HashSet.of(images))


@dataclass(frozen=True)
class SameImages:
    """Which of some images are in a group. All ``[n]``, bool.

    Attributes:
        by_bytes: their files' bytes are those of one in the group.
        by_id: bytes could not be compared, and their id is that of one in the group.
        other_bytes: their id is that of one in the group, with other bytes; none where a filter's
            mistakes explain as many.
        by_mistake: how many others a filter has counted in ``by_bytes`` and ``by_id``, on average.
    """

    by_bytes: Array
    by_id: Array
    other_bytes: Array
    by_mistake: float


@dataclass(frozen=True)
class TrainedOn:
    """A model's record of the images it was trained on.

    Attributes:
        groups: ``train``, and ``chosen_on``: those that chose the best step.
    """

    groups: Mapping[str, ImageGroup] = field(default_factory=dict)

    @classmethod
    def of(
        cls, train: Pairs, chosen_on: Pairs | None = None, unpaired: StoreRows | None = None
    ) -> TrainedOn:
        """The record of a training.

        Args:
            train: what was trained on.
            chosen_on: what chose the best step.
            unpaired: images that were trained on beside those of the pairs.
        """
        groups = {}
        for name, pairs in (("train", train), ("chosen_on", chosen_on)):
            if pairs is not None:
                hashes = pairs.image.image_hashes(pairs.image_rows)
                groups[name] = ImageGroup.of(pairs.ids, hashes)
        if unpaired is not None:
            store, rows = unpaired.store, unpaired.rows
            more = rows[IdIndex(train.ids).find(store.ids.take(rows)) < 0]
            own = train.image.image_hashes(train.image_rows)
            groups["train"] = ImageGroup.of(
                Ids.joined([train.ids, store.ids.take(more)]),
                np.concatenate([own, store.image_hashes(more)]),
            )
        return cls(groups)

    @property
    def is_exact(self) -> bool:
        """Whether it can be joined with another, as filters cannot."""
        return all(group.is_exact for group in self.groups.values())

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """The record of both, of a training that began where another ended; both must be exact."""
        joined = dict(self.groups)
        for name, group in other.groups.items():
            joined[name] = joined[name] | group if name in joined else group
        return TrainedOn(joined)

    def after(self, before: TrainedOn | None, model: str) -> TrainedOn:
        """This training's record with that of the one before, where they can be joined; else this
        one alone, which the log says.

        Args:
            before: the record of the model that the training began with, if it has one.
            model: its name, for the log.
        """
        if before is None:
            return self
        if before.is_exact and self.is_exact:
            return before | self
        log.warning(
            "%s was trained on too many images to be joined with those of this training, which "
            "stand alone in the new model's record", model,
        )  # fmt: skip
        return self

    def find(self, group: str, ids: Sequence[str], hashes: Array) -> SameImages:
        """Which of some images are in a group; none where there is no such group.

        Bytes decide where both sides have them, ids elsewhere.

        Args:
            group: its name.
            ids: ``n`` of them.
            hashes: ``[n]`` uint64 of the images' bytes, 0 where not known.
        """
        if group not in self.groups:
            none = np.zeros(len(ids), bool)
            return SameImages(none, none, none, 0.0)
        known = self.groups[group]
        has_bytes = hashes != 0
        by_bytes = has_bytes & known.images.has(hashes)
        same_id = known.ids.has(hash_ids(ids)) & ~by_bytes
        compared = has_bytes if known.without_hash == 0 else np.zeros(len(ids), bool)
        other_bytes = same_id & compared
        if other_bytes.sum() <= most_by_chance(known.ids.by_mistake(compared)):
            other_bytes[:] = False  # a filter's mistakes
        by_mistake = known.images.by_mistake(has_bytes) + known.ids.by_mistake(~compared)
        return SameImages(by_bytes, same_id & ~compared, other_bytes, by_mistake)

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        about = {
            "groups": {
                name: {"count": group.count, "without_hash": group.without_hash}
                for name, group in sorted(self.groups.items())
            },
        }
        arrays = {
            f"{name}.{kind}": values
            for name, group in sorted(self.groups.items())
            for kind, values in (("ids", group.ids.values), ("images", group.images.values))
        }
        write_record(path, _VERSION, about, arrays)

    @classmethod
    def load(cls, path: Path) -> TrainedOn:
        """Read a record.

        Raises:
            ModelError: it is damaged, or of a later version.
        """
        remedy = (
            "Copy the file again; or remove it: then nothing says what the model was trained on."
        )
        with open_record(path, _VERSION, "damaged or truncated", remedy) as (about, arrays):
            groups = {
                name: ImageGroup(
                    int(counts["count"]), int(counts["without_hash"]),
                    _checked(arrays[f"{name}.ids"]), _checked(arrays[f"{name}.images"]),
                )
                for name, counts in about["groups"].items()
            }  # fmt: skip
        return cls(groups)


def _checked(values: Array) -> HashSet:
    if values.dtype not in (np.uint64, np.uint8) or values.ndim != 1:
        raise ValueError(f"hashes are {values.dtype} of {values.ndim} dimensions")
    return HashSet(values)
