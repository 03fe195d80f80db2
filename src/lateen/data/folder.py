"""A folder of images, with or without class subfolders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path

from lateen.data.fingerprint import combine, file_hashes
from lateen.data.images import IMAGE_SUFFIXES, is_image_file
from lateen.data.samples import FileImage, Sample, Skip, is_unicode, sample_id, split_word
from lateen.errors import DataError
from lateen.objects import ObjectPath, to_path
from lateen.progress import log

SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@__thumb", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot",
     "$recycle.bin", "system volume information", "__macosx", "lost+found", "thumbnails", "thumbs",
     "__pycache__", "thumbs.db", "desktop.ini"}
)  # fmt: skip
"""What systems and viewers put beside photographs, which is never data; in lower case."""


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or of a system or viewer, by its name."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def visible_folders(folder: Path) -> list[str]:
    """The names of the subfolders that may hold data, sorted."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_system(p.name))


def split_folders(root: Path) -> tuple[str, ...]:
    """The subfolders of a folder that are splits rather than classes, by their names.

    Names in any case, such as ``Train`` and ``seg_test``. A warning says where subfolders look like
    splits and are not called so, and which are left out beside splits.
    """
    folders = visible_folders(root)
    inside = {name: set(visible_folders(root / name)) for name in folders}
    parts = tuple(name for name in folders if split_word(name))
    plain = all(split_word(name) and name.isalpha() for name in parts)
    alike = len(parts) > 1 and len(set.intersection(*(inside[name] for name in parts))) > 0
    others = [name for name in folders if name not in parts]
    if parts and (alike or (plain and not others)):
        if others:
            log.warning("%s: left out beside %s: %s", root, ", ".join(parts), ", ".join(others))
        return parts
    if len(folders) > 1 and len(common := set.intersection(*inside.values())) > 1:
        log.warning(
            "%s: its folders (%s) are taken for the classes, and have the same subfolders (%s), as "
            "splits have; to judge one of them, give its path",
            root, ", ".join(folders[:4]), ", ".join(sorted(common)[:4]),
        )  # fmt: skip
    return ()


class ImageFolder:
    """All images below a folder, sorted by id, which is the path relative to the folder.

    The label is the first folder of that path, where there is one. Files without an ending are
    images if they begin like one. Hidden files and folders and those of systems and thumbnails
    (:data:`SYSTEM_FOLDERS`) are left out, links are followed; what is left out is told of.

    Args:
        root: the folder.

    Raises:
        DataError: it cannot be listed or has no image.
    """

    why_no_captions = "it is a folder of images, without a table, JSON or text files to read"

    def __init__(self, root: Path | str) -> None:
        self.name = str(root)
        self.columns: tuple[str, ...] = ()
        self._root = to_path(root)
        others: Counter[str] = Counter()
        if isinstance(self._root, ObjectPath):
            paths = _list_objects(self._root, others)
        else:
            paths = _walk(self._root, "", frozenset(), others)
        ids = {path: _id_of(path) for path in paths}
        kinds = ", ".join(
            f"{count} {kind or 'without suffix'}" for kind, count in others.most_common()
        )
        if ids and kinds:
            log.warning("%s: left out, as they are no images: %s", root, kinds)
        if not ids:
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


def _list_objects(root: ObjectPath, others: Counter[str]) -> Iterator[str]:
    """As :func:`_walk`, in an object store; an object without an ending is not looked into."""
    for path in root.files():
        *folders, name = path.split("/")
        suffix = f".{name.rpartition('.')[2].lower()}" if "." in name else ""
        if any(part.startswith(".") for part in (*folders, name)):
            continue
        if systems := [part for part in folders if is_system(part)]:
            others[f"{systems[0]}/"] += 1
        elif suffix in IMAGE_SUFFIXES and not is_system(name):
            yield path
        else:
            others[suffix] += 1


def _walk(
    root: Path, inside: str, above: frozenset[tuple[int, int]], others: Counter[str]
) -> Iterator[str]:
    """Relative paths of the images below a folder.

    Args:
        root: the folder that paths are relative to.
        inside: the subfolder of it to look in.
        above: device and inode of the folders on the way there, to notice links in a circle.
        others: receives how many other files there are by suffix, and folders by name.
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
        if is_system(entry.name):
            others[f"{entry.name}/" if _is_folder(entry) else entry.name] += 1
        elif _is_folder(entry):
            yield from _walk(root, path, above | {folder_id}, others)
        elif suffix in IMAGE_SUFFIXES or (not suffix and is_image_file(entry.path)):
            yield path
        else:
            others[suffix] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():  # DirEntry.is_dir raises where a link points to itself
        return Path(entry.path).is_dir()
    return entry.is_dir()
