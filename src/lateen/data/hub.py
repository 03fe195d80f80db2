"""Hugging Face ``datasets``: from the hub by name, saved to a folder, or in Parquet files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lateen.data.captions import CaptionDataset
from lateen.data.fingerprint import file_hashes
from lateen.data.rows import Row, Rows
from lateen.data.samples import choose_split
from lateen.data.tables import add_by_id, find_caption_columns, find_id_column, find_image_column
from lateen.errors import DataError, choices

# datasets is imported where it is used: it takes seconds.

_ROWS = 1024
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class RowImage:
    """An image in a row of a ``datasets.Dataset``, read undecoded when it is asked for."""

    name: str
    rows: Any = field(repr=False, compare=False)
    column: str
    index: int

    def read(self) -> bytes:
        """The encoded bytes; a row without an image is an ``OSError``."""
        cell = self.rows[self.index][self.column] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path"):
            return Path(cell["path"]).read_bytes()
        raise OSError("the row has no image")


class HubRows(Rows):
    """One split of a dataset, row by row.

    Args:
        name: what the user called the dataset.
        rows: a ``datasets.Dataset``.
    """

    def __init__(self, name: str, rows: Any) -> None:
        super().__init__(name, list(rows.column_names))
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def features(self) -> dict[str, Any]:
        """The type of each column."""
        return dict(self._rows.features)

    def source(self, index: int) -> str:
        """What messages call a row."""
        return f"{self.name}[{index}]"

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, with the cells of ``columns`` only, read in batches."""
        if not columns:
            yield from (Row({}, self.source(index)) for index in range(len(self)))
            return
        indices = itertools.count()
        for batch in self._rows.select_columns(list(columns)).iter(_ROWS):
            for values in zip(*(batch[name] for name in columns), strict=True):
                yield Row(dict(zip(columns, values, strict=True)), self.source(next(indices)))

    def embedded(self, column: str, suffix: str = "") -> HubImages | None:
        """The images in ``column`` if it is of the type ``Image``."""
        return HubImages(self, column, suffix) if column in self.image_columns else None

    @cached_property
    def image_columns(self) -> list[str]:
        """The columns of the type ``Image``."""
        import datasets

        return [name for name, kind in self.features.items() if isinstance(kind, datasets.Image)]

    def undecoded(self, column: str) -> Any:
        """The column ``column`` alone, its images as they are stored."""
        import datasets

        rows = self._rows.select_columns([column])
        return rows.cast_column(column, datasets.Image(decode=False))

    def hashes(self) -> list[str]:
        """Of the files that the rows are in; images may lie outside."""
        return file_hashes([file["filename"] for file in self._rows.cache_files])


class HubImages:
    """The images in a column of a split, which may be stored in the rows or in files outside.

    Args:
        rows: the split.
        column: the column, of the type ``Image`` or of encoded images; ``None`` for texts alone.
        suffix: what the images' names end in.
    """

    def __init__(self, rows: HubRows, column: str | None, suffix: str = "") -> None:
        self._rows = rows
        self._column = column
        self._suffix = suffix
        self._undecoded = None if column is None else rows.undecoded(column)

    def names(self) -> Iterator[None]:
        """None has a name of its own."""
        return itertools.repeat(None)

    def sources(self, refs: Iterable[int | None]) -> Iterator[RowImage | None]:
        """The images in some rows, given by their numbers from 0."""
        for ref in refs:
            if ref is None or self._column is None:
                yield None
            else:
                name = self._rows.source(ref) + self._suffix
                yield RowImage(name, self._undecoded, self._column, ref)

    def hashes(self, refs: Iterable[int | None]) -> list[str]:
        """Of the files that the rows are in, and of those that images are in."""
        del refs
        return [*self._rows.hashes(), *file_hashes(self._outside())]

    def _outside(self) -> Iterator[str]:
        """The files of images that are not in the dataset itself."""
        if self._undecoded is None or self._column is None:
            return
        for chunk in self._undecoded.data.column(self._column).chunks:
            # Looks at where there are bytes, not at the bytes.
            present = chunk.field("bytes").is_valid().to_pylist()
            paths = chunk.field("path").to_pylist()
            yield from (p for p, there in zip(paths, present, strict=True) if p and not there)


class HubDataset(CaptionDataset):
    """One split of a Hugging Face dataset; each row is a sample.

    The id is in a column ``id``, ``image_id``, ``key``, … or ``path``, else the row's number from
    0. A dataset without a column of type ``Image`` is one of texts alone.

    Args:
        source: a folder written by ``save_to_disk``, or a name on the hub.
        split: ``train``, ``test``, …; needed where there are several.
        image_column: the image column; the first of type ``Image`` if not given.
        captions: the caption columns, texts or lists of texts; guessed by their names if not given.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline), or has no such column or no row.
        UsageError: there is no such split, or it is needed and not given.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        split: str | None = None,
        image_column: str | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        rows = HubRows(str(source), load_rows(source, split))
        image = _image_column(rows, image_column)
        columns = find_caption_columns(rows.columns, captions, image, str(source))
        images = HubImages(rows, image)
        super().__init__(str(source), columns, images, merge=image is None)
        self.why_no_captions = f"its only column is {image!r}"
        key = find_id_column(rows.columns) or ("path" if "path" in rows.columns else None)
        add_by_id(self, rows, key, None if image is None else images)
        if not self._items:
            raise DataError(f"{source} has no rows", "Give another split.")


def _image_column(rows: HubRows, given: str | None) -> str | None:
    of_type = rows.image_columns
    if given is None:
        return find_image_column(of_type, None) or (of_type[0] if of_type else None)
    find_image_column(rows.columns, given)
    if given not in of_type:
        raise DataError(f"the column {given!r} is not of the type Image", choices(given, of_type))
    return given


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``folder`` was written by ``save_to_disk``."""
    names = ("dataset_dict.json", "dataset_info.json")
    return any((folder / name).is_file() for name in names)


def is_hub_name(source: str | Path) -> bool:
    """Whether it can only be meant as the name of a dataset on the hub."""
    path = Path(source)
    return not path.parent.exists() and _HUB_NAME.fullmatch(str(source)) is not None


def load_rows(source: Path | str, split: str | None) -> Any:
    """The ``datasets.Dataset`` of one split.

    Args:
        source: as :func:`load_splits` takes it.
        split: needed where there are several.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline).
        UsageError: there is no such split, or it is needed and not given.
    """
    import datasets

    content = load_splits(source, split)
    if not isinstance(content, datasets.DatasetDict):
        return content
    return content[choose_split(list(content), split, source)]


def load_splits(source: Path | str, split: str | None = None) -> Any:
    """A ``datasets.Dataset`` where there is one split alone, else a ``datasets.DatasetDict``.

    Args:
        source: a folder written by ``save_to_disk``, a Parquet file or a folder of such, or a name
            on the hub.
        split: which one to ask the hub for; all if not given.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline).
    """
    import datasets

    path = Path(source)
    is_saved = path.is_dir() and (is_saved_dataset(path) or not any(path.rglob("*.parquet")))
    try:
        if is_saved:
            return datasets.load_from_disk(str(source), keep_in_memory=False)
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(source), keep_in_memory=False)
        return datasets.load_dataset(str(source), split=split, keep_in_memory=False)
    except (
        OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError
    ) as error:  # fmt: skip
        raise unreachable(source, error) from error


def unreachable(source: Path | str, error: Exception) -> DataError:
    """The error that a dataset cannot be loaded, with what to do about it."""
    if Path(source).exists():
        reason = " ".join(str(error.__cause__ or error).split())  # the outer one says nothing
        return DataError(f"{source} cannot be loaded ({reason})", "Write or download it again.")
    reason = " ".join(str(error).split())
    return DataError(
        f"the dataset {source} cannot be loaded ({reason[:300]})",
        "Check its name; if it is gated, accept its terms at "
        f"https://huggingface.co/datasets/{source} and run `hf auth login`; without a network, "
        "give a folder with the data, such as one saved with save_to_disk.",
    )
