"""WebDataset: tar shards in which the files of a sample share a name and follow each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lateen.data.columns import guess_caption_columns
from lateen.data.fingerprint import file_hashes
from lateen.data.gather import GatheredDataset
from lateen.data.sample import ImageSource, Skip, TarImage
from lateen.data.shards import Group, find_shards, read_groups
from lateen.errors import DataError, choices


class WebDataset(GatheredDataset):
    """Samples in tar shards; the id is the name that a sample's files share, without type.

    Images are ``.jpg``, ``.jpeg``, ``.png`` or ``.webp``. Caption columns are ``caption`` for
    ``.txt`` files, and the fields of ``.json`` files that hold a text or a list of texts and are
    called like captions. Shards are read once for their index; images stay where they are. Of a
    shard that ends early the whole samples are used and the one that is cut is skipped.

    Args:
        source: a .tar file, a folder of them, or a pattern such as ``shards-{000..003}.tar``.
        captions: the caption columns; guessed by their names if not given.

    Raises:
        DataError: there are no shards, one is compressed, or no sample has such a column.
    """

    def __init__(self, source: Path | str, *, captions: Sequence[str] = ()) -> None:
        self._shards = find_shards(source)
        groups = [group for shard in self._shards for group in read_groups(shard)]
        texts = [_texts(group, captions) for group in groups]
        columns = captions or sorted({name for found in texts for name in found})
        super().__init__(str(source), columns, merge=False)
        for group, found in zip(groups, texts, strict=True):
            if group.key:
                self._add(group.key, group.image, found, str(group.shard), group.fault)
            else:
                self._skip(Skip(group.shard.name, group.fault, str(group.shard)))
        absent = [name for name in captions if not any(name in found for found in texts)]
        if absent:
            known = {name for group in groups for name in _all_texts(group)}
            raise DataError(
                f"{source} has no captions {absent[0]!r}", choices(absent[0], sorted(known))
            )

    def _images(self, refs: Iterable[TarImage]) -> Iterator[ImageSource]:
        return iter(refs)

    def _contents(self) -> Iterable[str]:
        return file_hashes(self._shards)


def _texts(group: Group, wanted: Sequence[str]) -> dict[str, Any]:
    """A sample's captions by column: those wanted, else those that are called like captions."""
    texts = _all_texts(group)
    names = wanted or guess_caption_columns(list(texts))
    return {name: texts[name] for name in names if name in texts}


def _all_texts(group: Group) -> dict[str, Any]:
    try:
        fields = json.loads(group.texts.get("json", b"{}"))
    except (ValueError, RecursionError):  # no JSON, or not Unicode
        fields = None
    if not isinstance(fields, dict):
        fields = {}
        if "txt" not in group.texts:
            group.fault = group.fault or "its .json is not a JSON object"
    texts = {name: value for name, value in fields.items() if _is_text(value)}
    if "txt" in group.texts:
        # What is not UTF-8 becomes half characters, which are told apart from captions later.
        texts["caption"] = group.texts["txt"].decode("utf-8", "surrogateescape")
    return texts


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)
