"""One function that opens whatever the user points at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lateen.data.coco import CocoCaptions
from lateen.data.folder import ImageFolder
from lateen.data.hub import HubDataset, is_hub_name, is_saved_dataset
from lateen.data.rows import TABLE_SUFFIXES
from lateen.data.samples import Dataset, ImageFiles, refuse_split
from lateen.data.tables import Table
from lateen.data.webdataset import WebDataset
from lateen.errors import DataError, nearest
from lateen.objects import ObjectPath, is_remote, to_path

_ACCEPTED = (
    f"Give a table ({', '.join(TABLE_SUFFIXES)}), COCO or Karpathy captions (.json), WebDataset "
    "shards (.tar), a folder of images, a folder saved by datasets, or a hub name (owner/name)."
)
_COPY = "Copy the folder to this machine, or keep the data as Parquet or WebDataset shards."
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_dataset(
    source: str | Path,
    *,
    images: str | Path | ImageFiles | None = None,
    image_column: str | None = None,
    captions: Sequence[str] = (),
    split: str | None = None,
) -> Dataset:
    """Open a dataset; what it is follows from the first of these rules that fits.

    1. Ends in ``.tar`` (also ``{000..123}.tar`` and ``*/*.tar``): WebDataset shards.
    2. A folder with ``dataset_info.json`` or ``dataset_dict.json``: saved by ``datasets``.
    3. A folder with ``.tar`` files: WebDataset shards.
    4. Any other folder: images, with class subfolders or without.
    5. A file that ends in ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet``: a table.
    6. A file that ends in ``.json``: COCO captions or Karpathy's splits.
    7. No such path, and the form ``owner/name``: a dataset on the Hugging Face hub.

    Args:
        source: a path, a pattern of shards, or a hub name; a path may be one in an object store
            (``s3://``, ``gs://``) or on the hub (``hf://datasets/OWNER/NAME/PATH``).
        images: the folder that the images' names in a table or JSON file are relative to, or
            :class:`~lateen.data.samples.AbsentImages`.
        image_column: the image column of a table or hub dataset.
        captions: the caption columns of a table, shards or hub dataset.
        split: the split of Karpathy's JSON or a hub dataset.

    Raises:
        DataError: there is nothing there, it is of no known kind, or it cannot be read.
        UsageError: a split is asked for where there are none, or one that is not there.
    """
    whole, mark, behind = str(source).rpartition("#")
    if split is None and mark and not to_path(source).exists():
        # A path may have a # in it: then what stands before the last one is not there either.
        source, split = (whole, behind) if _is_there(whole) else (source, None)
    path = to_path(source)
    if is_remote(source):
        source = path
    if path.is_dir() and is_saved_dataset(path):
        if isinstance(path, ObjectPath):
            raise DataError(f"{path} was saved by datasets, which is read from a disk", _COPY)
        return HubDataset(source, split=split, image_column=image_column, captions=captions)
    if path.suffix.lower() == ".json" and path.is_file():
        return CocoCaptions(source, images=images, split=split)
    if _means_hub(str(source)):
        return HubDataset(source, split=split, image_column=image_column, captions=captions)
    refuse_split(source, split)
    if str(source).lower().endswith(_TAR) or (path.is_dir() and any(path.glob("*.tar"))):
        return WebDataset(source, captions=captions)
    if path.is_dir():
        return ImageFolder(source)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return Table(source, images=images, image_column=image_column, captions=captions)
    raise _nothing_known(path)


def check_source(source: str | Path) -> None:
    """See that there is something to open, without opening it.

    Raises:
        DataError: there is no such path, and it is no hub name and no pattern of shards.
    """
    whole = str(source).rpartition("#")[0]
    if any(_is_there(name) or set(name) & {"{", "*"} for name in (str(source), whole) if name):
        return
    raise _nothing_known(to_path(source))


def _is_there(source: str) -> bool:
    return to_path(source).exists() or is_hub_name(source)


def _means_hub(source: str) -> bool:
    """Whether it can only be meant as a hub name, not as a path with a typing mistake."""
    known = (*TABLE_SUFFIXES, *_TAR, ".json")
    return is_hub_name(source) and not source.lower().endswith(known)


def _nothing_known(path: Path) -> DataError:
    if isinstance(path, ObjectPath):
        path.check_bucket()
    if path.exists():
        return DataError(
            f"{path} is a file of no known kind ({path.suffix or 'no'} suffix)", _ACCEPTED
        )
    parent = path.parent
    siblings = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    if near := nearest(path.name, siblings):
        return DataError(f"there is no {path}", f"Did you mean {parent / near}?")
    return DataError(f"there is no {path}", _ACCEPTED)
