"""Datasets whose images are files under a folder."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lateen.data.fingerprint import file_hashes
from lateen.data.gather import GatheredDataset
from lateen.data.sample import FileImage, ImageSource
from lateen.errors import DataError

PEEK = 64
"""How many images are looked for to find the folder that all are in."""


class ImageRoot:
    """Finds the files that ids name, also where the disk spells accents differently (NFD)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, sample: str) -> str | None:
        """The path, relative to the folder, of the file that the id ``sample`` names."""
        if os.path.isfile(os.path.join(self.folder, sample)):  # noqa: PTH113, PTH118 - speed
            return sample
        if sample.isascii():
            return None
        found = ""
        for part in sample.split("/"):
            actual = self._listing(found).get(part)
            if actual is None:
                return None
            found = posixpath.join(found, actual)
        return found if (self.folder / found).is_file() else None

    def _listing(self, relative: str) -> dict[str, str]:
        """Composed name to name on disk, for all that is in a subfolder."""
        if relative not in self._listings:
            try:
                names = os.listdir(self.folder / relative)  # noqa: PTH208 - names, not paths
            except OSError:
                names = []
            self._listings[relative] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listings[relative]


def find_root(
    given: Path | str | None, candidates: Sequence[Path], samples: Iterable[str]
) -> ImageRoot:
    """The folder ``given``, else the first candidate that has most of the files in ``samples``."""
    if given is not None:
        return ImageRoot(Path(given))
    wanted = list(samples)
    roots = [ImageRoot(folder) for folder in dict.fromkeys(candidates)]
    return max(roots, key=lambda root: sum(root.find(sample) is not None for sample in wanted))


class RootedDataset(GatheredDataset):
    """Rows that name image files under ``root``; an image that is not there is skipped.

    The reference of an image is its path relative to the root, or ``None`` for texts alone.
    """

    def __init__(self, name: str, columns: Sequence[str], root: ImageRoot, *, merge: bool) -> None:
        super().__init__(name, columns, merge=merge)
        self._root = root

    def _add_file(self, sample: str, cells: Mapping[str, Any], source: str) -> None:
        if sample in self._by_id:
            self._add(sample, None, cells, source)
            return
        if sample.startswith(("http:/", "https:/")):  # an id has no double slashes
            found, fault = None, "the image is a URL, and only local files are read"
        else:
            found, fault = self._root.find(sample), "the image file does not exist"
        self._add(sample, found, cells, source, "" if found else fault)

    def _require_images(self) -> None:
        """Refuse to go on where every image is missing: then the folder is wrong, not the data."""
        if self._by_id and all(entry.fault for entry in self._by_id.values()):
            first = next(iter(self._by_id.values()))
            raise DataError(
                f"not one of the {len(self._by_id)} images named in {self.name} can be used: "
                f"{first.fault} (the first is {first.id!r}, looked for in {self._root.folder})",
                "Give the folder they are relative to with --images (--data.images for a recipe).",
            )

    def _images(self, refs: Iterable[Any]) -> Iterator[ImageSource | None]:
        folder = self._root.folder
        return (None if ref is None else FileImage(folder / ref) for ref in refs)

    def _contents(self) -> Iterable[str]:
        images = (entry.image for entry in self._whole())
        return file_hashes(self._root.folder / image for image in images if image is not None)
