"""A folder of photographs searched by a model: over an index that lateen keeps for the two."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lateen.errors import StoreError, UsageError
from lateen.hardware import cache_folder
from lateen.indexing.building import Update, update_index
from lateen.indexing.contents import Contents
from lateen.indexing.given_model import GivenModel
from lateen.indexing.hits import Hit
from lateen.indexing.photo_index import Index, is_index
from lateen.indexing.query import Query
from lateen.progress import log

if TYPE_CHECKING:
    from PIL.Image import Image

    from lateen.model import AlignedModel

    _One = Query | str | Path | Image


def index(
    source: str | Path, model: AlignedModel | str | Path, out: str | Path, *,
    images: str | Path | None = None, captions: Sequence[str] = (), split: str | None = None,
    bank: str | Path | None = None, overwrite: bool = False,
) -> Index:  # fmt: skip
    """Make an index of photographs, or bring it up to date: only what is new is encoded.

    A call that is killed loses nothing: called again, it goes on.

    Args:
        source: a folder of photographs, with all its subfolders; or a table, shards or a hub id, as
            :func:`~lateen.data.open_dataset` reads them. Captions and the columns of a table can be
            filtered by.
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        out: the index: a folder, or the address of an object store (``s3://bucket/index``).
        images: the folder that a table's images are in.
        captions: the caption columns of a table.
        split: of a source that has splits.
        bank: a query bank, by which the hubness of every image is known: the model's own if it
            carries one; ``none``; or a file of ``lateen bank``.
        overwrite: make it anew; what is known of photographs is not encoded again.

    Raises:
        ModelError: the index is of another model or another query bank.
        UsageError: it is of another folder, or has other columns.
        DataError: there is no image that can be read.
        BusyError: another process writes to it.
    """
    given = GivenModel(model)
    contents = Contents.of(source, images=images, captions=captions, split=split)
    update_index(out, contents, given, bank=bank, overwrite=overwrite)
    return Index.open_for(out, given)


def search(
    model: AlignedModel | str | Path,
    query: _One | Sequence[_One],
    images: str | Path,
    *,
    k: int = 12,
    bank: str | Path | None = None,
    cache: Path | None = None,
    skipped: list[dict[str, str]] | None = None,
    same: list[str] | None = None,
) -> list[list[Hit]]:
    """The ``k`` images of a folder nearest to each query, best first.

    An index of the folder is kept in lateen's cache folder and brought up to date. An image of the
    folder that is the query itself, to the byte, is no hit of it.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        query: one query or several: a sentence, an image by its ``Path``, an opened image, or a
            :class:`~lateen.indexing.query.Query`.
        images: a folder of images, with all its subfolders.
        k: hits per query; all images if there are fewer.
        bank: a query bank, which takes the hubness of every image off its score where the query is
            a sentence: the model's own if it carries one; ``none``; or a file of ``lateen bank``.
        cache: where to keep features and the index; lateen's cache folder if not given.
        skipped: receives ``id`` and ``reason`` of every image that could not be read.
        same: receives the id of every image that was left out because it is the query itself.

    Returns:
        One list of hits per query.

    Raises:
        UsageError: an empty query, or k below 1.
        DataError: no readable image in the folder, or a query that cannot be read.
    """
    several = list(query) if isinstance(query, list | tuple) else [cast("_One", query)]
    asked = [Query.of(each) for each in several]
    if not asked:
        raise UsageError("the query is empty", "Say in a few words what to look for.")
    if k < 1:
        raise UsageError(f"k is {k}", "Ask for at least one hit.")
    kept, update = folder_index(GivenModel(model), images, bank=bank, cache=cache)
    if skipped is not None:
        skipped += update.unreadable
    results = []
    for each in asked:
        found = kept.search(each, k=k, cut=False)
        results.append(found.hits)
        if same is not None:
            same += found.same
    return results


def folder_index(
    given: GivenModel, images: str | Path, *, bank: str | Path | None = None,
    cache: Path | None = None,
) -> tuple[Index, Update]:  # fmt: skip
    """The index that lateen keeps of a folder for a model, brought up to date.

    Args:
        given: the model.
        images: a folder, or another source.
        bank: a query bank, as :func:`search` takes it.
        cache: where; lateen's cache folder if not given.
    """
    contents = Contents.of(images)
    name = "\n".join((contents.name, given.key, given.bank_key(bank)))
    base = cache or cache_folder()
    place = base / "indexes" / hashlib.sha256(name.encode()).hexdigest()[:24]
    features = None if cache is None else cache / "photos"
    try:
        update = update_index(place, contents, given, bank=bank, cache=features, wait=True)
    except StoreError as error:  # damaged, or of another format: everything in a cache can be lost
        log.info("an index in the cache is made anew: %s", error)
        update = update_index(
            place, contents, given, bank=bank, cache=features, wait=True, overwrite=True
        )
    return Index.open_for(place, given), update


def open_or_build(
    target: str | Path, images: str | Path | None = None, *, bank: str | Path | None = None
) -> Index:
    """An index by its place; or that of a folder for a model, brought up to date.

    Args:
        target: an index, or a model, for which ``images`` is needed.
        images: a folder of photographs.
        bank: a query bank, as :func:`search` takes it.

    Raises:
        UsageError: a model without images, or an index with them.
    """
    if is_index(target):
        if images is not None:
            raise UsageError(
                f"{target} is an index, which knows its photographs", "Leave --images out."
            )
        return Index.open(os.fspath(target))
    if images is None:
        raise UsageError(
            f"{target} is no index, and there are no photographs to search",
            "Give a model's folder with --images PHOTOS, or an index: lateen index PHOTOS --model "
            "MODEL --out INDEX.",
        )
    return folder_index(GivenModel(target), images, bank=bank)[0]
