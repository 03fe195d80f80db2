"""Hugging Face ``datasets``: from the hub by name, or saved to a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lateen.data.captions import GatheredDataset, row_key
from lateen.data.fingerprint import file_hashes
from lateen.data.samples import ImageSource, Skip, choose_split
from lateen.data.tables import find_caption_columns, find_id_column, find_image_column
from lateen.errors import DataError, choices

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


class HubDataset(GatheredDataset):
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
        rows = load_rows(source, split)
        names = list(rows.column_names)
        image = _image_column(rows, image_column)
        columns = find_caption_columns(names, captions, image, str(source))
        super().__init__(str(source), columns, merge=image is None)
        self._image = image
        self._rows = rows if image is None else undecoded(rows, image)
        self._add_rows(rows, find_id_column(names) or ("path" if "path" in names else None))
        if not self._items:
            raise DataError(f"{source} has no rows", "Give another split.")

    def _add_rows(self, rows: Any, key: str | None) -> None:
        wanted = list(dict.fromkeys([*self.columns, *([key] if key else [])]))
        for index, cells in enumerate(_cells(rows, wanted)):
            sample = row_key(cells[key]) if key else str(index)
            source = f"{self.name}[{index}]"
            if sample:
                self._add(sample, None if self._image is None else index, cells, source)
            else:
                self._skip(Skip("", f"the row has no {key}", source, sample=False))

    def _images(self, refs: Iterable[int | None]) -> Iterator[ImageSource | None]:
        for ref in refs:
            if ref is None or self._image is None:
                yield None
            else:
                yield RowImage(f"{self.name}[{ref}]", self._rows, self._image, ref)

    def _contents(self) -> Iterable[str]:
        files = [file["filename"] for file in self._rows.cache_files]
        outside = () if self._image is None else outside_files(self._rows, self._image)
        return file_hashes([*files, *outside])


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
        source: a folder written by ``save_to_disk``, or a name on the hub.
        split: needed where there are several.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline).
        UsageError: there is no such split, or it is needed and not given.
    """
    import datasets  # slow to import

    try:
        if Path(source).is_dir():
            found = datasets.load_from_disk(str(source), keep_in_memory=False)
        else:
            found = datasets.load_dataset(str(source), split=split, keep_in_memory=False)
    except (
        OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError
    ) as error:  # fmt: skip
        raise DataError(
            f"the dataset {source} cannot be loaded ({' '.join(str(error).split())})",
            "Check its name; if it is gated, accept its terms on the hub and run `hf auth login`; "
            "without a network, give a folder saved with save_to_disk.",
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        return found
    return found[choose_split(list(found), split, source)]


def _image_column(rows: Any, given: str | None) -> str | None:
    import datasets

    of_type = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if given is None:
        return find_image_column(of_type, None) or (of_type[0] if of_type else None)
    find_image_column(list(rows.column_names), given)
    if given not in of_type:
        raise DataError(f"the column {given!r} is not of the type Image", choices(given, of_type))
    return given


def undecoded(rows: Any, column: str) -> Any:
    """The column ``column`` of rows alone, its images as they are stored."""
    import datasets

    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def outside_files(rows: Any, column: str) -> Iterator[str]:
    """The files of images that are not in the dataset itself.

    Args:
        rows: as :func:`undecoded` gives them.
        column: of the images.
    """
    for chunk in rows.data.column(column).chunks:
        # Looks at where there are bytes, not at the bytes.
        present = chunk.field("bytes").is_valid().to_pylist()
        paths = chunk.field("path").to_pylist()
        yield from (p for p, there in zip(paths, present, strict=True) if p and not there)


def _cells(rows: Any, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each row's cells in the columns ``wanted``, read in batches."""
    if not wanted:
        yield from ({} for _ in range(len(rows)))
        return
    for batch in rows.select_columns(list(wanted)).iter(_ROWS):
        for values in zip(*(batch[name] for name in wanted), strict=True):
            yield dict(zip(wanted, values, strict=True))
