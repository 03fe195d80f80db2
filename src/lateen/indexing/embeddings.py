"""Embed images or texts with a model, and write the embeddings where other tools read them."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lateen.data import ImageFolder, ListDataset, Sample, open_dataset
from lateen.data.rows import TABLE_SUFFIXES
from lateen.data.samples import AbsentImages, Dataset, FileImage, ImageSource, no_captions
from lateen.data.text import read_json, read_list
from lateen.errors import DataError, UsageError
from lateen.evaluation.features import JudgedImages, find_trained_on, side_features
from lateen.features import Store, pair
from lateen.files import content_key
from lateen.indexing.contents import table_cells
from lateen.indexing.photo_index import Index, is_index
from lateen.indexing.photographs import Photographs
from lateen.indexing.vector_files import CAPTIONS, ID, known_columns, write_vectors
from lateen.model import AlignedModel, open_model
from lateen.model.model import project_rows
from lateen.model.query_bank import NO_BANK, QUERY_BANK, QueryBank, check_size, chosen_bank
from lateen.progress import log
from lateen.training.config import BankSection

BANK_SIZE = BankSection().size
"""Images, and captions, of a bank of which nothing else is said."""
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings with the ids of what they are of.

    Attributes:
        ids: of each row: an image's path in its folder, the number of a text's line, from 1, or the
            sample's id in a table, which several captions may share.
        values: ``[n, dim]``, float32; L2-normalised, or as the head gives them.
        skipped: ``id`` and ``reason`` of what could not be embedded.
        texts: of each row, where they are of texts.
        known: of each row of images: ``path`` of its file from everywhere, ``folder``,
            ``captions`` one a line, and the columns of the table or index that they come from;
            without what is known of none.
        images: goes through the images of the rows, in their order.
    """

    ids: list[str]
    values: Array
    skipped: list[dict[str, str]]
    texts: list[str] | None = None
    known: pa.Table | None = None
    images: Callable[[], Iterator[ImageSource]] | None = None

    def save(self, path: str | Path, *, thumbnails: int | None = None) -> list[Path]:
        """Write them to a file, in the format that its ending says.

        ``.parquet`` has everything in the columns ``id``, ``embedding``, ``text`` of texts, and
        what is known of images. ``.npy``, ``.safetensors``, ``.usearch`` and ``.hnswlib`` hold
        numbers, with the ids one a line in ``NAME.ids.txt`` beside them. ``lateen import`` reads
        the first three.

        Args:
            path: of the file.
            thumbnails: in a ``.parquet`` file of images, have a column ``image`` of small pictures
                with a longer edge of so many pixels.

        Returns:
            The files.

        Raises:
            UsageError: another ending, an id with a line break, which a line cannot hold, or
                thumbnails where there can be none.
            MissingExtraError: what writes the format is not installed.
        """
        return write_vectors(self, path, thumbnails=thumbnails)


def embed(
    model: AlignedModel | Index | str | Path,
    *,
    images: str | Path | None = None,
    texts: Sequence[str] | str | Path | None = None,
    column: str | None = None,
    raw: bool = False,
    bank: str | Path = NO_BANK,
    cache: Path | None = None,
) -> Embeddings:
    """Embeddings of images, or of texts, with their ids.

    Features are cached by content: a second call costs little. Of an index it gives the embeddings
    that are in it: nothing is encoded, and no model is opened.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id; or an
            index of photographs, alone.
        images: a folder of images, with all its subfolders; or a table, shards or a hub id, as
            :func:`~lateen.data.open_dataset` reads them.
        texts: a list of texts; a text file with one a line, or JSON with a list of them; or a table
            or COCO JSON with captions, whose images need not be there.
        column: the caption column of a table; the first one if not given.
        raw: as the head gives them, not L2-normalised.
        bank: a query bank: ``model`` for the one that the model carries, or the file of one. Two
            values then stand behind each embedding: the inner product of an image's and a text's is
            their cosine less the hubness of both
            (:meth:`~lateen.model.query_bank.QueryBank.extend_images`). By default there is none.
        cache: where to keep features of photographs; lateen's cache folder if not given.

    Raises:
        UsageError: both of images and texts, or neither; anything beside an index.
        DataError: nothing to embed, or what cannot be read.
    """
    if isinstance(model, Index) or (not isinstance(model, AlignedModel) and is_index(model)):
        if images is not None or texts is not None or column is not None or raw or bank != NO_BANK:
            raise UsageError(
                f"{_name_of(model)} is an index, whose embeddings are there as they are",
                "Give it alone; or a model with --images or --texts.",
            )
        return _of_index(model if isinstance(model, Index) else Index.open(model))
    if (images is None) == (texts is None):
        both = "images and texts at once" if texts is not None else "neither images nor texts"
        raise UsageError(f"embed is given {both}", "Give one of --images and --texts.")
    if column is not None and images is not None:
        raise UsageError("--column is of captions", "Leave it out, or give --texts.")
    pictures = open_dataset(images) if images is not None else None
    words = _texts(texts, column) if texts is not None else None
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    known = chosen_bank(ready, bank)
    if raw and known is not None:
        raise UsageError("hubness is of embeddings at unit length", "Leave --raw or --bank out.")
    if images is not None and pictures is not None:
        return _of_images(images, pictures, ready, raw, known, cache)
    assert words is not None
    chosen = column if column is not None else words.columns[0]
    embeddings = _of_store(side_features(ready, "text", words, chosen), ready, "text", raw, known)
    return replace(embeddings, texts=_texts_of(words, chosen, embeddings.ids))


def build_bank(
    model: AlignedModel | str | Path,
    captions: str | Path,
    *,
    images: str | Path | None = None,
    column: str | None = None,
    split: str | None = None,
    size: int = BANK_SIZE,
    out: str | Path | None = None,
) -> QueryBank:
    """Make a query bank for a model, of images with captions that are not those it is judged on.

    A model that was trained by lateen carries one. Others, such as a CLIP, get one of pictures and
    captions like those that will be looked for.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        captions: a source of images with captions, as :func:`~lateen.data.open_dataset` reads it.
        images: folder of the images that ``captions`` names.
        column: the caption column; the first one if not given.
        split: of a source that has splits.
        size: images, and captions; all if there are fewer.
        out: the file to write; if not given, the one that the model's folder carries it in.

    Raises:
        UsageError: a bank of one item, or a model that was opened from no folder and no ``out``.
        DataError: there are no captions.
    """
    check_size(size)
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    file = bank_file(ready, model) if out is None else Path(out)
    dataset = open_dataset(
        captions, images=images, split=split, captions=(column,) if column else ()
    )
    if not dataset.columns:
        raise DataError(no_captions(dataset), "Give a file that has, with --captions.")
    chosen, *others = (column,) if column else dataset.columns
    if others:
        log.warning("the bank is of the captions %s (also there: %s; choose with --column)", chosen,
                    ", ".join(others))  # fmt: skip
    some = _some_of(dataset, size)
    text = side_features(ready, "text", some, chosen)
    pairs = pair(side_features(ready, "vision", some), text, missing="drop")
    bank = QueryBank.of(ready, pairs, size=size, held_out=pairs)
    seen = find_trained_on(ready, JudgedImages.of(pairs.image, pairs.image_rows))
    if seen and seen["images"]:
        log.warning(
            "%d of these %d images trained the model: the bank's temperature, which is found by "
            "them, is a little low", seen["images"], seen["of"],
        )  # fmt: skip
    bank.save(file)
    log.info("query bank: %s in %s", bank, file)
    return bank


def _some_of(dataset: Dataset, count: int) -> ListDataset:
    """So many of a dataset's images with captions, in its order: no more need be encoded."""
    samples = [s for s in dataset if isinstance(s, Sample)]
    chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:count])
    fingerprint = content_key([dataset.fingerprint, "bank", count])
    return ListDataset(
        dataset.name, [samples[index] for index in chosen], fingerprint, dataset.columns
    )


def bank_file(model: AlignedModel, given: AlignedModel | str | Path) -> Path:
    """Where a model carries its bank.

    Args:
        model: as it was opened.
        given: by what.

    Raises:
        UsageError: it has no folder here.
    """
    place = model.folder if isinstance(given, AlignedModel) else Path(given).expanduser()
    if place is None or not place.is_dir():
        raise UsageError("the model has no folder to put the bank in", "Name a file with --out.")
    return place / QUERY_BANK


def _texts(given: Sequence[str] | str | Path, column: str | None) -> Dataset:
    """Texts as a dataset, with a caption column.

    Raises:
        DataError: there are none.
        UsageError: a column of what has no columns.
    """
    if isinstance(given, str | Path) and _is_table(Path(given)):
        dataset = open_dataset(
            given, images=AbsentImages(), captions=(column,) if column is not None else ()
        )
        if not dataset.columns:
            raise DataError(no_captions(dataset), "Give a file that has, with --texts.")
        return dataset
    if column is not None:
        raise UsageError("a list of texts has no column", "Leave --column out.")
    lines = read_list(Path(given)) if isinstance(given, str | Path) else list(given)
    samples = [Sample(str(i), None, {"text": (t,)}) for i, t in enumerate(lines, 1) if t.strip()]
    if not samples:
        raise DataError("there are no texts to embed", "Write one a line.")
    return ListDataset("texts", samples, content_key(lines), ("text",))


def _is_table(path: Path) -> bool:
    """Whether a file has captions of samples, rather than one text a line."""
    if path.suffix.lower() == ".json" and path.is_file():
        content = read_json(path)
        return isinstance(content, dict) and bool({"annotations", "images"} & set(content))
    return path.suffix.lower() in (*TABLE_SUFFIXES, ".tar") or path.is_dir()


def _texts_of(dataset: Dataset, column: str, ids: Sequence[str]) -> list[str] | None:
    """The text of each row; ``None`` where some of an id's captions were left out, so that it is
    not known which rows those are that are there."""
    samples = [each for each in dataset if isinstance(each, Sample)]
    both = [(sample.id, text) for sample in samples for text in sample.captions.get(column, ())]
    if [name for name, _ in both] != list(ids):
        return None
    return [text for _, text in both]


def _of_images(
    source: str | Path, dataset: Dataset, model: AlignedModel, raw: bool, bank: QueryBank | None,
    cache: Path | None,
) -> Embeddings:  # fmt: skip
    """A folder's features are cached by photograph, those of other sources as a whole."""
    if isinstance(dataset, ImageFolder):
        photographs = Photographs.of(model, source, cache=cache, normalize=not raw)
        values = photographs.embeddings
        values = values if bank is None else bank.extend_images(values)[:]
        ids = [sample.id for sample in photographs.samples]
        made = Embeddings(ids, values.numpy(), photographs.unreadable)
    else:
        made = _of_store(side_features(model, "vision", dataset), model, "image", raw, bank)
    wanted = set(made.ids)

    def read() -> Iterator[Sample]:
        return (each for each in dataset if isinstance(each, Sample) and each.id in wanted)

    # The images themselves are not held, as a table may have their bytes.
    paths, captions = {}, {}
    for each in read():
        paths[each.id] = _whole_path(each.image)
        captions[each.id] = [text for texts in each.captions.values() for text in texts]
    told = _told(made.ids, [paths[name] for name in made.ids], [captions[n] for n in made.ids])
    cells, columns = table_cells(source, dataset)
    for field in columns:
        values_of = [cells.get(name, {}).get(field.name) for name in made.ids]
        told[field.name] = pa.array(values_of, field.type)
    made = replace(made, known=known_columns(told))
    if list(paths) != made.ids:  # of a dataset that is in another order now
        return made
    return replace(made, images=lambda: (each.image for each in read() if each.image is not None))


def _whole_path(image: ImageSource | None) -> str | None:
    """The path, from everywhere, of an image in a file of its own."""
    return os.path.abspath(image.path) if isinstance(image, FileImage) else None  # noqa: PTH100


def _of_index(index: Index) -> Embeddings:
    rows, values = index.listing()
    each = rows.to_pylist()
    paths = [None if row["path"] is None else _whole_path(index.image_of(row)) for row in each]
    told = _told(rows[ID].to_pylist(), paths, [row["captions"] or () for row in each])
    told |= {name: rows[name] for name in index.columns() if name not in (ID, *told)}
    return Embeddings(
        rows[ID].to_pylist(), values, index.skipped(), known=known_columns(told),
        images=lambda: (index.image_of(row) for row in each),
    )  # fmt: skip


def _told(
    ids: Iterable[str], paths: Iterable[str | None], captions: Iterable[Iterable[str]]
) -> dict[str, Any]:
    """The columns that every source has."""
    return {
        "path": pa.array(paths, pa.string()),
        "folder": pa.array([posixpath.dirname(name) for name in ids], pa.string()),
        CAPTIONS: pa.array(["\n".join(texts) for texts in captions], pa.string()),
    }


def _name_of(index: Index | AlignedModel | str | Path) -> str:
    return index.place if isinstance(index, Index) else str(index)


def _of_store(
    store: Store, model: AlignedModel, modality: Literal["image", "text"], raw: bool,
    bank: QueryBank | None,
) -> Embeddings:  # fmt: skip
    project = model.project_image if modality == "image" else model.project_text
    values = project_rows(functools.partial(project, normalize=not raw), store, range(len(store)))
    if bank is not None:
        extend = bank.extend_images if modality == "image" else bank.extend_texts
        values = extend(values)[:]
    skipped = [{"id": skip["id"], "reason": skip["reason"]} for skip in store.skipped]
    return Embeddings(list(store.ids), values.numpy(), skipped)
