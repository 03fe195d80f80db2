"""Captions out of other files beside those that a dataset has, joined by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from lateen.data.fingerprint import combine
from lateen.data.samples import Dataset, Sample, Skip
from lateen.errors import DataError
from lateen.progress import log


class CaptionsBeside:
    """A dataset with further caption columns, as a :class:`~lateen.data.samples.Dataset`.

    Its samples are the dataset's, in its order. One that another file has no caption of comes with
    a skip for that file's column.

    Args:
        dataset: with the images; it need not have captions.
        others: captions by id, such as ``lateen caption`` makes; what else they have is not looked
            at.

    Raises:
        DataError: two have a column of one name, or another file has not one of the ids.
    """

    def __init__(self, dataset: Dataset, others: Sequence[Dataset]) -> None:
        self.name = dataset.name
        self._dataset, self._others = dataset, tuple(others)
        self.columns: tuple[str, ...] = tuple(dataset.columns)
        # By column: the captions by id, or why there are none.
        self._found: dict[str, dict[str, tuple[str, ...] | str]] = {}
        self._file: dict[str, str] = {}
        for other in others:
            self._add(other)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample | Skip]:
        for item in self._dataset:
            if isinstance(item, Skip):
                yield item
                continue
            captions = dict(item.captions)
            for column, by_id in self._found.items():
                found = by_id.get(item.id, f"{self._file[column]} has no caption of it")
                if isinstance(found, str):
                    source = self._file[column]
                    yield Skip(item.id, found, source, sample=False, column=column)
                else:
                    captions[column] = found
            yield Sample(item.id, item.image, captions, item.label)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever any sample's bytes, captions or order change."""
        return combine([self._dataset.fingerprint, *(each.fingerprint for each in self._others)])

    @cached_property
    def _count(self) -> int:
        return sum(1 for _ in self)

    def _add(self, other: Dataset) -> None:
        clash = set(self.columns) & set(other.columns)
        if clash or not other.columns:
            why = f"has a column {min(clash)!r}, too" if clash else "has no captions"
            raise DataError(f"{other.name} {why}", "Give a file with a caption column of its own.")
        by_column: dict[str, dict[str, tuple[str, ...] | str]] = {c: {} for c in other.columns}
        for item in other:
            for column, by_id in by_column.items():
                if isinstance(item, Sample):
                    if texts := item.captions.get(column):
                        by_id[item.id] = texts
                elif item.column in (None, column):
                    by_id.setdefault(item.id, item.reason)
        ids = {item.id for item in self._dataset if isinstance(item, Sample)}
        known = {
            i for by_id in by_column.values() for i, v in by_id.items() if isinstance(v, tuple)
        }
        if not ids & known:
            raise DataError(
                f"not one id of {other.name} is in {self.name} (such as "
                f"{min(known, default='none')!r} and {min(ids, default='none')!r})",
                "Caption the very source: ids join captions to images.",
            )
        log.info("%s: captions of %d of %d images out of %s: %s", self.name, len(ids & known),
                 len(ids), other.name, ", ".join(other.columns))  # fmt: skip
        self._found |= by_column
        self._file |= dict.fromkeys(other.columns, other.name)
        self.columns += tuple(other.columns)
