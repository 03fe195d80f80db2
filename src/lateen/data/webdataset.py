"""WebDataset: tar shards in which the files of a sample share a name."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from lateen.data.captions import CaptionDataset
from lateen.data.fingerprint import file_hashes
from lateen.data.images import IMAGE_SUFFIXES
from lateen.data.samples import Skip, TarImage, sample_id
from lateen.data.tables import guess_caption_columns
from lateen.errors import DataError, choices
from lateen.objects import ObjectPath, is_object, mapped, matching, to_path
from lateen.progress import bar, log

_IMAGE_TYPES = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_TEXT_TYPES = ("txt", "json", "cls")
_BLOCK = 512
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# The share of .txt files with several lines from which on each line is taken for a caption.
_LINES_ARE_CAPTIONS = 0.95
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
    """The shards that a file, a folder or a pattern stands for: ``shards-{000..003}.tar``, of which
    all must be there, or ``*/*.tar``, those that are.

    Raises:
        DataError: there is none, one is missing, or one is compressed.
    """
    path = to_path(source)
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
    else:
        shards = [shard for name in _expand(str(path)) for shard in matching(to_path(name))]
    remote = any(map(is_object, shards))
    there = mapped(lambda shard: shard.is_file(), shards, remote=remote)
    missing = [shard for shard, is_there in zip(shards, there, strict=True) if not is_there]
    if missing or not shards:
        what = f"there is no shard {missing[0]}" if missing else f"there are no shards in {source}"
        raise DataError(
            what, "Give a .tar file, a folder of them, shards-{000..123}.tar or */*.tar."
        )
    for shard, magic in zip(shards, mapped(_magic, shards, remote=remote), strict=True):
        if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise DataError(
                f"the shard {shard} is compressed, so its images cannot be read one by one",
                "Unpack it, for example with: gunzip.",
            )
    return shards


def _magic(shard: Path) -> bytes:
    """What a file begins with."""
    if isinstance(shard, ObjectPath):
        return shard.reader().head(_BLOCK)
    with shard.open("rb") as file:
        return file.read(6)


def read_groups(shard: Path) -> list[Group]:
    """The samples of a shard, in the order of their first files. Only headers and texts are read.

    The files of a sample may stand anywhere in the shard; a second file of a type begins another
    sample of that name. A sample that is cut because the shard ends early is a fault; if the cut
    lies between two samples, a group without key says so at the end.
    """
    stream = shard.open("rb")
    try:
        tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - closed below
    except tarfile.ReadError:
        stream.close()
        return [Group("", shard, "the shard is empty or no tar file")]
    size = shard.stat().st_size
    with stream, tar:
        files = list(_files(tar))
        samples = _by_sample(files)
        groups = [
            _group(same[0].key, shard, tar, [file for file in same if file.stop <= size])
            for same in samples
        ]
        if not _ends_well(tar, shard):
            cut = next((i for i, same in enumerate(samples) if same[-1].stop > size), None)
            in_order = sum(1 for _ in groupby(files, key=lambda file: file.key)) == len(samples)
            _mark_cut(groups, cut, shard, in_order=in_order)
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


def _by_sample(files: Sequence[_File]) -> list[list[_File]]:
    samples: list[list[_File]] = []
    latest: dict[str, list[_File]] = {}
    for file in files:
        same = latest.get(file.key)
        if same is None or any(other.type == file.type for other in same):
            same = latest[file.key] = []
            samples.append(same)
        same.append(file)
    return samples


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


def _mark_cut(groups: list[Group], cut: int | None, shard: Path, *, in_order: bool) -> None:
    """Say of the samples that lack something, or at the end, that the shard ends early.

    Args:
        groups: all samples.
        cut: which of them has a file that is cut.
        shard: the shard.
        in_order: whether the files of each sample follow each other.
    """
    alike = len(groups) > 1 and groups[-1].types == groups[-2].types
    if in_order:
        lacking = groups[-1:] if groups and (cut is not None or not alike) else []
    else:
        lacking = [
            group for index, group in enumerate(groups)
            if index == cut or set(groups[0].types) - set(group.types)
        ]  # fmt: skip
    for group in lacking:
        group.fault = "the shard ends early, within this sample"
    if not lacking:
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

    Where shards use the same names for different images, the shard's name stands before it.

    Images are of all types that folders have. Caption columns are ``caption`` for ``.txt`` files,
    and the fields of ``.json`` files that hold a text or a list of texts and are called like
    captions. Where nearly every ``.txt`` file has several lines, each line is a caption; the
    columns ``txt`` (the file is one caption) and ``lines`` (each line is one) decide it.

    Shards are read once for their index; images stay where they are. Of a shard that ends early the
    whole samples are used and the one that is cut is skipped.

    Args:
        source: a .tar file, a folder of them, or a pattern such as ``shards-{000..003}.tar`` or
            ``*/*.tar``.
        captions: the caption columns; guessed by their names if not given.

    Attributes:
        label_files: by id, the content of a sample's ``.cls`` file, and the shard that it is in.

    Raises:
        DataError: there are no shards, one is compressed, or no sample has such a column.
    """

    def __init__(self, source: Path | str, *, captions: Sequence[str] = ()) -> None:
        shards = find_shards(source)
        groups: list[Group] = []
        remote = any(map(is_object, shards))
        with bar(len(shards), "reading shards", "shard", stage=False) as progress:
            for some in mapped(read_groups, shards, remote=remote):
                groups += some
                progress.update()
        _tell_apart(groups, str(source))
        texts = [_all_texts(group) for group in groups]
        known = {name for fields in texts for name in fields}
        if absent := [name for name in captions if name not in known]:
            raise DataError(
                f"{source} has no captions {absent[0]!r}", choices(absent[0], sorted(known))
            )
        columns = tuple(captions) or guess_caption_columns(sorted(known), str(source))
        super().__init__(str(source), columns, _ShardImages(shards), merge=False)
        types = sorted({each for group in groups for each in group.types})
        self.why_no_captions = (
            f"its shards have no .txt files, and no field in .json called like captions (types: "
            f"{', '.join(types) or 'none'}; fields of text: {', '.join(sorted(known)) or 'none'})"
        )
        _split_lines(texts, columns, str(source))
        for group, fields in zip(groups, texts, strict=True):
            cells = {name: fields.get(name, []) for name in columns}
            if columns and not any(name in fields for name in columns):
                group.fault = group.fault or f"it has no caption, only: {', '.join(group.types)}"
            if group.key:
                self.add(group.key, group.image, cells, str(group.shard), group.fault)
            else:
                self.skip(Skip(group.shard.name, group.fault, str(group.shard)))
        self.label_files: dict[str, tuple[str, Path]] = {}
        for group in groups:
            if "cls" in group.texts:  # of samples of one id the first counts
                label = group.texts["cls"].decode("utf-8-sig", "replace").strip()
                self.label_files.setdefault(group.key, (label, group.shard))


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


def _tell_apart(groups: Sequence[Group], source: str) -> None:
    """Put the shard's name before the keys, where shards use one key for different images."""
    first: dict[str, Group] = {}
    own_shard: list[Path] = []  # of each group; of a copy, that of the first
    clashes = 0
    for group in groups:
        other = first.setdefault(group.key, group)
        apart = group.key != "" and other.shard != group.shard and not _same_image(other, group)
        clashes += apart
        own_shard.append(group.shard if apart else other.shard)
    if not clashes:
        return
    root = os.path.commonpath([group.shard.parent for group in groups])
    for group, shard in zip(groups, own_shard, strict=True):
        if group.key:
            group.key = sample_id(f"{shard.relative_to(root).with_suffix('')}/{group.key}")
    log.warning(
        "%s: %d samples have the name of another one in an earlier shard; all ids are the shard's "
        "name and theirs, such as %s", source, clashes, groups[0].key,
    )  # fmt: skip


def _same_image(one: Group, other: Group) -> bool:
    if one.image is None or other.image is None:
        return one.image is other.image and one.texts == other.texts
    try:
        return one.image.size == other.image.size and one.image.read() == other.image.read()
    except OSError:
        return False


def _split_lines(texts: Sequence[dict[str, Any]], columns: Sequence[str], source: str) -> None:
    """Make each line of ``.txt`` files a caption, where nearly every file has several."""
    files = [fields for fields in texts if "lines" in fields]
    several = sum(len(fields["lines"]) > 1 for fields in files)
    if "caption" not in columns or not several:
        return
    if several >= _LINES_ARE_CAPTIONS * len(files):
        for fields in files:
            fields["caption"] = fields["lines"]
        log.info(
            "%s: each line of a .txt file is a caption (--data.captions txt: each file is one)",
            source,
        )
    else:
        log.warning(
            "%s: %d of %d .txt files have several lines, and each file is read as one caption "
            "(--data.captions lines: each line is one)", source, several, len(files),
        )  # fmt: skip


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
        text = group.texts["txt"].decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        lines = [line for line in text.splitlines() if line.strip()]
        texts.update(caption=text, txt=text, lines=lines)
    return texts


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)
