"""WebDataset: tar shards in which the files of a sample share a name and follow each other."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from lateen.data.captions import CaptionDataset
from lateen.data.fingerprint import file_hashes
from lateen.data.samples import Skip, TarImage, sample_id
from lateen.data.tables import guess_caption_columns
from lateen.errors import DataError, choices

_IMAGE_TYPES = ("jpg", "jpeg", "png", "webp")
_TEXT_TYPES = ("txt", "json", "cls")
_BLOCK = 512
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# As in the webdataset library: the type is all behind the first dot of the last path component.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")


@dataclass(slots=True)
class Group:
    """The files of one sample.

    Attributes:
        key: what the files' names have in common; empty for a shard that cannot be read on.
        shard: the shard that it is in.
        fault: why it cannot be used, empty if it can.
        image: its image, if it has one.
        types: the types of its files.
        texts: the content of its ``txt``, ``json`` and ``cls`` files.
    """

    key: str
    shard: Path
    fault: str = ""
    image: TarImage | None = None
    types: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)


def find_shards(source: Path | str) -> list[Path]:
    """The shards that a file, a folder or a pattern such as ``shards-{000..003}.tar`` stands for.

    Raises:
        DataError: there is none, one is missing, or one is compressed.
    """
    path = Path(source)
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [Path(p) for p in _expand(str(path))]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        what = f"there is no shard {missing[0]}" if missing else f"there are no shards in {source}"
        raise DataError(what, "Give a .tar file, a folder of them, or shards-{000..123}.tar.")
    for shard in shards:
        with shard.open("rb") as file:
            magic = file.read(6)
        if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise DataError(
                f"the shard {shard} is compressed, so its images cannot be read one by one",
                "Unpack it, for example with: gunzip.",
            )
    return shards


def read_groups(shard: Path) -> list[Group]:
    """The samples of a shard, in order. Only headers and texts are read.

    A sample that is cut because the shard ends early is a fault; if the cut lies between two
    samples, a group without key says so at the end.
    """
    try:
        tar = tarfile.open(shard, "r:")  # noqa: SIM115 - closed below
    except tarfile.ReadError:
        return [Group("", shard, "the shard is empty or no tar file")]
    size = shard.stat().st_size
    with tar:
        files = list(_files(tar))
        groups = [
            _group(key, shard, tar, [file for file in same if file.stop <= size])
            for key, same in groupby(files, key=lambda file: file.key)
        ]
        if not _ends_well(tar, shard):
            _mark_cut(groups, cut_file=bool(files) and files[-1].stop > size, shard=shard)
    return groups


class _File(NamedTuple):
    key: str
    type: str
    member: tarfile.TarInfo

    @property
    def stop(self) -> int:
        """Where its content ends in the shard."""
        return self.member.offset_data + self.member.size


def _files(tar: tarfile.TarFile) -> Iterator[_File]:
    try:
        for member in tar:
            match = _NAME.fullmatch(member.name)
            if member.isfile() and match is not None:
                yield _File(sample_id(match[1]), match[2].lower(), member)
    except tarfile.TarError:  # the shard ends early, which _ends_well finds out
        return


def _group(key: str, shard: Path, tar: tarfile.TarFile, files: list[_File]) -> Group:
    group = Group(key, shard, types=sorted(file.type for file in files))
    for file in files:
        member = file.member
        if file.type in _IMAGE_TYPES and group.image is None:
            group.image = TarImage(shard, member.name, member.offset_data, member.size)
        elif file.type in _TEXT_TYPES:
            content = tar.extractfile(member)
            group.texts[file.type] = content.read() if content is not None else b""
    if group.image is None:
        group.fault = f"it has no image, only: {', '.join(group.types)}"
    return group


def _ends_well(tar: tarfile.TarFile, shard: Path) -> bool:
    """Whether a block of zeros, tar's end marker, stands where reading stopped."""
    with shard.open("rb") as file:
        file.seek(tar.offset)
        return file.read(_BLOCK) == bytes(_BLOCK)


def _mark_cut(groups: list[Group], *, cut_file: bool, shard: Path) -> None:
    alike = len(groups) > 1 and groups[-1].types == groups[-2].types
    if groups and (cut_file or not alike):
        groups[-1].fault = "the shard ends early, within this sample"
    else:
        groups.append(Group("", shard, "the shard ends early: what should follow is lost"))


def _expand(pattern: str) -> list[str]:
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for number in numbers for path in _expand(f"{before}{number}{after}")]


class WebDataset(CaptionDataset):
    """Samples in tar shards; the id is the name that a sample's files share, without type.

    Images are ``.jpg``, ``.jpeg``, ``.png`` or ``.webp``. Caption columns are ``caption`` for
    ``.txt`` files, and the fields of ``.json`` files that hold a text or a list of texts and are
    called like captions. Shards are read once for their index; images stay where they are. Of a
    shard that ends early the whole samples are used and the one that is cut is skipped.

    Args:
        source: a .tar file, a folder of them, or a pattern such as ``shards-{000..003}.tar``.
        captions: the caption columns; guessed by their names if not given.

    Attributes:
        label_files: by id, the content of a sample's ``.cls`` file, and the shard that it is in.

    Raises:
        DataError: there are no shards, one is compressed, or no sample has such a column.
    """

    def __init__(self, source: Path | str, *, captions: Sequence[str] = ()) -> None:
        shards = find_shards(source)
        groups = [group for shard in shards for group in read_groups(shard)]
        texts = [_texts(group, captions) for group in groups]
        columns = captions or sorted({name for cells in texts for name in cells})
        super().__init__(str(source), columns, _ShardImages(shards), merge=False)
        for group, cells in zip(groups, texts, strict=True):
            if group.key:
                self.add(group.key, group.image, cells, str(group.shard), group.fault)
            else:
                self.skip(Skip(group.shard.name, group.fault, str(group.shard)))
        self.label_files: dict[str, tuple[str, Path]] = {}
        for group in groups:
            if "cls" in group.texts:  # of samples of one id the first counts
                label = group.texts["cls"].decode("utf-8", "replace").strip()
                self.label_files.setdefault(group.key, (label, group.shard))
        absent = [name for name in captions if not any(name in cells for cells in texts)]
        if absent:
            known = {name for group in groups for name in _all_texts(group)}
            raise DataError(
                f"{source} has no captions {absent[0]!r}", choices(absent[0], sorted(known))
            )


class _ShardImages:
    """The images in shards; each is its own reference."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = shards

    def sources(self, refs: Iterable[TarImage]) -> Iterator[TarImage]:
        """The images themselves."""
        return iter(refs)

    def hashes(self, refs: Iterable[TarImage]) -> list[str]:
        """Of the shards."""
        del refs
        return file_hashes(self._shards)


def _texts(group: Group, captions: Sequence[str]) -> dict[str, Any]:
    """A sample's captions by column: those asked for, else those that are called like captions."""
    texts = _all_texts(group)
    names = captions or guess_caption_columns(list(texts))
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
