"""A folder of images, with or without class subfolders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path

from lateen.data.fingerprint import combine, file_hashes
from lateen.data.images import IMAGE_SUFFIXES
from lateen.data.samples import FileImage, Sample, Skip, is_unicode, sample_id
from lateen.errors import DataError


class ImageFolder:
    """All images below a folder, sorted by id, which is the path relative to the folder.

    The label is the first folder of that path, where there is one. Hidden files and folders are
    left out, links are followed.

    Args:
        root: the folder.

    Raises:
        DataError: it cannot be listed or has no image.
    """

    def __init__(self, root: Path | str) -> None:
        self.name = str(root)
        self.columns: tuple[str, ...] = ()
        self._root = Path(root)
        others: Counter[str] = Counter()
        ids = {path: _id_of(path) for path in _walk(self._root, "", frozenset(), others)}
        if not ids:
            kinds = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in others.items())
            raise DataError(
                f"there are no images in {root} ({f'but {kinds}' if kinds else 'it is empty'})",
                f"Images are the files that end in {', '.join(sorted(IMAGE_SUFFIXES))}.",
            )
        self._files = dict(sorted(ids.items(), key=lambda item: (item[1], item[0])))

    @property
    def labels(self) -> dict[str, str]:
        """The label of every image that is in a subfolder, by id."""
        samples = (item for item in self if isinstance(item, Sample))
        return {sample.id: sample.label for sample in samples if sample.label is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted; empty where no image is in a subfolder."""
        labels = {_label(sample) for sample in self._files.values() if is_unicode(sample)}
        return tuple(sorted(label for label in labels if label is not None))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Sample | Skip]:
        previous = ("", "")
        for path, sample in self._files.items():
            source = str(self._root / path)
            if not is_unicode(path):
                name = os.fsencode(path).decode("utf-8", "backslashreplace")
                yield Skip(name, "the file name is not valid UTF-8", name)
            elif sample == previous[0]:  # the same name in composed and decomposed Unicode
                reason = f"the id was already used at {previous[1]}"
                yield Skip(sample, reason, source, sample=False)
            else:
                yield Sample(sample, FileImage(self._root / path), label=_label(sample))
                previous = (sample, source)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever any image's bytes or name change."""
        hashes = file_hashes(self._root / path for path in self._files)
        return combine(chain(self._files.values(), hashes))


def _id_of(path: str) -> str:
    return sample_id(path) if is_unicode(path) else path


def _label(sample: str) -> str | None:
    first, slash, _ = sample.partition("/")
    return first if slash else None


def _walk(
    root: Path, inside: str, above: frozenset[tuple[int, int]], others: Counter[str]
) -> Iterator[str]:
    """Relative paths of the images below a folder.

    Args:
        root: the folder that paths are relative to.
        inside: the subfolder of it to look in.
        above: device and inode of the folders on the way there, to notice links in a circle.
        others: receives how many other files there are, by suffix.
    """
    folder = root / inside
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = list(listing)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"there is no folder {folder}", "Check the path.") from error
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be listed ({error.strerror})", "Check its permissions."
        ) from error
    folder_id = (status.st_dev, status.st_ino)
    if folder_id in above:  # a link to a folder that it is in
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = f"{inside}/{entry.name}" if inside else entry.name
        suffix = f".{entry.name.rpartition('.')[2].lower()}" if "." in entry.name else ""
        if _is_folder(entry):
            yield from _walk(root, path, above | {folder_id}, others)
        elif suffix in IMAGE_SUFFIXES:
            yield path
        else:
            others[suffix] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():  # DirEntry.is_dir raises where a link points to itself
        return Path(entry.path).is_dir()
    return entry.is_dir()
