"""Which column of a table is the image, which are captions, which is the id."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lateen.errors import DataError, choices

_IMAGE_NAMES = (
    "image", "image_path", "image_file", "image_filename", "image_file_name", "image_filepath",
    "image_name", "imagepath", "filename", "file_name", "filepath", "file_path", "file", "path",
    "img", "img_path", "img_file", "img_name", "jpg", "png", "photo", "picture",
)  # fmt: skip
_ID_NAMES = ("id", "image_id", "img_id", "key", "uid")
_CAPTION = re.compile(
    r"(caption|text|short|long(?!itude))\w*"
    r"|(\w+_)?(captions?|text|raw|title|sentences?|comment|description)"
)
# A column that describes captions is not one: caption_id, text_url, short_count.
_NOT_CAPTION_ENDS = ("_id", "_ids", "id", "_index", "_number", "_count", "_url", "_path", "_file",
                     "_length", "_score", "_embedding")  # fmt: skip


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


def guess_caption_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns whose names say that they hold captions, in the order of ``names``."""
    return tuple(name for name in names if _names_captions(name))


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
    found = tuple(name for name in guess_caption_columns(names) if name != image)
    if not found and list(names) != [image]:
        raise DataError(
            f"{what} has no column that is called like captions; its columns are "
            f"{', '.join(names) or '(none)'}",
            "Name the caption columns with --data.captions and the image column with "
            "--data.image_column (in CSV and TSV the first line must be the header).",
        )
    return found


def _check(names: Sequence[str], given: str, option: str) -> str:
    if given not in names:
        raise DataError(f"there is no column {given!r} ({option})", choices(given, names))
    return given


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    by_word = {_word(name): name for name in reversed(names)}
    return next((by_word[word] for word in wanted if word in by_word), None)


def _names_captions(name: str) -> bool:
    word = _word(name)
    return _CAPTION.fullmatch(word) is not None and not word.endswith(_NOT_CAPTION_ENDS)


def _word(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
