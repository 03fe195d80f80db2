"""Captions, and which images they belong to, in a table: which column is what, and its samples."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from lateen.data.captions import CaptionDataset, is_missing, row_key
from lateen.data.rows import EmbeddedImages, Row, Rows, open_rows
from lateen.data.samples import PEEK, ImageFiles, Skip, find_image_files, is_unicode, sample_id
from lateen.errors import DataError, choices
from lateen.objects import to_path
from lateen.progress import log

_IMAGE_NAMES = (
    "image", "image_path", "image_file", "image_filename", "image_file_name", "image_filepath",
    "image_name", "imagepath", "filename", "file_name", "filepath", "file_path", "file", "path",
    "img", "img_path", "img_file", "img_name", "jpg", "png", "photo", "picture",
)  # fmt: skip
_ID_NAMES = ("id", "image_id", "img_id", "key", "uid")
# Columns of captions by name, the surest first; only the first kind that a table has is taken.
_CAPTION_NAMES = (
    # Called a caption, with a number or what kind it is: raw_caption, caption_2, shortSV_captions.
    re.compile(
        r"(?!(num|number|n|has|is|max|min)_)(\w+_)?(captions?|sentences?)(_?\d+)?"
        r"|captions?_(raw|long|short|alt|original|clean|dense|detailed|brief)"
        r"|texts?(_?\d+)?|raw|texts?_(raw|long|short)|(short|long(?!itude))(_\w+)?"
    ),
    # What is a caption in some sets, and something else in others.
    re.compile(r"\w+_(text|raw)"),
    re.compile(r"(\w+_)?(description|alt|prompt)"),
    re.compile(r"(\w+_)?(comment|title)"),
)
# A column that describes captions is not one: caption_id, text_url, short_count.
_NOT_CAPTION_ENDS = ("_id", "_ids", "id", "_index", "_number", "_count", "_url", "_path", "_file",
                     "_length", "_score", "_embedding", "_model", "_source", "_language", "_lang",
                     "_type", "_date", "_hash", "_width", "_height", "_side", "_edge")  # fmt: skip
_MAYBE_CAPTION = re.compile(r"(caption|text|short|long(?!itude))\w*")


def find_image_column(names: Sequence[str], given: str | None) -> str | None:
    """The column of images: the one given, else the first with a common name, else ``None``.

    Raises:
        DataError: the one given does not exist.
    """
    if given is not None:
        return _check(names, given, "--data.image_column")
    return _first(names, _IMAGE_NAMES)


def find_id_column(names: Sequence[str]) -> str | None:
    """The column of ids, if one has a common name."""
    return _first(names, _ID_NAMES)


def guess_caption_columns(names: Sequence[str], what: str) -> tuple[str, ...]:
    """The columns that are surely captions by their names, in the order of ``names``.

    Which ones, and which others might be, is said in the log.

    Args:
        names: every column.
        what: the data, for the log.
    """
    usable = {name: _word(name) for name in names if not _word(name).endswith(_NOT_CAPTION_ENDS)}
    kinds = [[n for n, word in usable.items() if k.fullmatch(word)] for k in _CAPTION_NAMES]
    guessed = next(filter(None, kinds), [])
    others = [
        name for name in names
        if name not in guessed
        and (any(name in kind for kind in kinds) or _MAYBE_CAPTION.fullmatch(_word(name)))
    ]  # fmt: skip
    if guessed and others:
        log.warning(
            "captions of %s: %s (also there: %s; choose with --data.captions)",
            what, ", ".join(guessed), ", ".join(others),
        )  # fmt: skip
    elif guessed:
        log.info("captions of %s: %s", what, ", ".join(guessed))
    return tuple(guessed)


def find_caption_columns(
    names: Sequence[str], given: Sequence[str], image: str | None, what: str
) -> tuple[str, ...]:
    """The caption columns: those given, else all with a common name.

    Args:
        names: every column.
        given: the user's choice, empty for none.
        image: the image column. A table without any other column is one of images alone.
        what: the table, for the message.

    Raises:
        DataError: one given does not exist, or none is given and none can be guessed.
    """
    if given:
        return tuple(_check(names, name, "--data.captions") for name in given)
    guessed = guess_caption_columns([name for name in names if name != image], what)
    if not guessed and list(names) != [image]:
        raise DataError(
            f"{what} has no column that is called like captions; its columns are "
            f"{', '.join(names) or '(none)'}",
            "Name the caption columns with --data.captions and the image column with "
            "--data.image_column (in CSV and TSV the first line must be the header).",
        )
    return guessed


def _check(names: Sequence[str], given: str, option: str) -> str:
    if given not in names:
        raise DataError(f"there is no column {given!r} ({option})", choices(given, names))
    return given


def _first(names: Sequence[str], common: Sequence[str]) -> str | None:
    by_word = {_word(name): name for name in reversed(names)}
    return next((by_word[word] for word in common if word in by_word), None)


def _word(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


class Table(CaptionDataset):
    """A table with one caption per row, several caption columns, or lists of captions.

    Rows that name the same image file are one sample. Ids are the image cells as written, with
    POSIX separators. Parquet may carry the images' bytes instead: then each row is a sample, whose
    id is in a column ``id``, ``image_id``, …, else the name that comes with the image, else the
    row's number from 0. A table without an image column is one of texts alone, with such ids.

    Args:
        path: a .csv, .tsv, .jsonl, .ndjson or .parquet file.
        images: the folder that image cells are relative to; if not given, the table's folder or
            its ``images`` subfolder, whichever has the files.
        image_column: the image column; guessed by its name if not given.
        captions: the caption columns; guessed by their names if not given.

    Raises:
        DataError: the file cannot be read, has no such column or no row, or not one of its images
            is there.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        images: Path | str | ImageFiles | None = None,
        image_column: str | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        path = to_path(path)
        rows = open_rows(path)
        image = find_image_column(rows.columns, image_column)
        columns = find_caption_columns(rows.columns, captions, image, str(path))
        embedded = None if image is None else rows.embedded(image)
        folder = path.parent
        if image is not None and embedded is None:
            # The cells name files: rows of the same file are one sample.
            first = itertools.islice(rows.read([image]), PEEK)
            names = filter(None, (_image_id(row, image) for row in first))
            files = find_image_files(images, [folder, folder / "images"], names)
            super().__init__(str(path), columns, files, merge=True)
            self._add_by_file(rows, image, files)
            self.require_image(files)
        else:
            # Each row has its image in it, or there are only texts, several to an id perhaps.
            super().__init__(
                str(path), columns, embedded or ImageFiles(folder), merge=embedded is None
            )
            add_by_id(self, rows, find_id_column(rows.columns), embedded)
        self.why_no_captions = f"its only column is {image!r}"
        if not self._items:
            raise DataError(f"{path} has no rows", "Give a table with at least one row.")

    def _add_by_file(self, rows: Rows, image: str, files: ImageFiles) -> None:
        for row in rows.read([image, *self.columns]):
            sample = _image_id(row, image)
            fault = row.fault or ("" if sample else "the row names no image")
            if fault:
                self.skip(Skip(sample, fault, row.source, sample=False))
            else:
                self.add_file(files, sample, row.cells, row.source)


def add_by_id(
    dataset: CaptionDataset, rows: Rows, id_column: str | None, images: EmbeddedImages | None
) -> None:
    """Add rows that have an id each: in a column, else the image's own name, else the row's number.

    Args:
        dataset: what to add them to.
        rows: with the dataset's caption columns.
        id_column: the column of ids, if there is one.
        images: their images, ``None`` for texts alone.
    """
    names = itertools.repeat(None) if images is None else images.names()
    columns = dict.fromkeys([*dataset.columns, *([id_column] if id_column else [])])
    for index, (row, name) in enumerate(zip(rows.read(list(columns)), names, strict=False)):
        if id_column is None:
            sample = sample_id(name or "") or str(index)
        else:
            sample = row_key(row.cells.get(id_column))
        fault = row.fault or ("" if sample else f"the row has no {id_column}")
        if fault:
            dataset.skip(Skip(sample, fault, row.source, sample=False))
        else:
            dataset.add(sample, None if images is None else index, row.cells, row.source)
    if images is not None:
        dataset.join_copies()
        if id_column is None and dataset.columns and next(iter(images.names()), None) is None:
            dataset.join_samples()  # the rows' numbers tell nothing apart


def _image_id(row: Row, column: str) -> str:
    """The id of the image that a row names; empty where it names none."""
    value = row.cells.get(column)
    if not isinstance(value, str) or is_missing(value) or not is_unicode(value):
        return ""
    return sample_id(value)
