"""Embed images or texts with a model, and write the embeddings where other tools read them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lateen.data import ImageFolder, ListDataset, Sample, open_dataset
from lateen.data.rows import TABLE_SUFFIXES
from lateen.data.samples import AbsentImages, Dataset, no_captions
from lateen.data.text import read_json, read_list
from lateen.errors import DataError, UsageError
from lateen.evaluation.features import JudgedImages, find_trained_on, side_features
from lateen.features import Store, pair
from lateen.files import atomic_path, content_key, write_text
from lateen.indexing.photographs import Photographs
from lateen.model import AlignedModel, open_model
from lateen.model.model import project_rows
from lateen.model.query_bank import NO_BANK, QUERY_BANK, QueryBank, check_size, chosen_bank
from lateen.progress import log
from lateen.training.config import BankSection

SUFFIXES = (".npy", ".parquet")
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
        texts: of each row, where they were given as a list.
    """

    ids: list[str]
    values: Array
    skipped: list[dict[str, str]]
    texts: list[str] | None = None

    def save(self, path: str | Path) -> list[Path]:
        """Write them to a ``.npy`` file, with the ids one a line in ``NAME.ids.txt`` beside it; or
        to a ``.parquet`` file with the columns ``id``, ``embedding`` and, if known, ``text``.

        ``lateen import`` reads both.

        Returns:
            The files.

        Raises:
            UsageError: another suffix, or an id with a line break, which a line cannot hold.
        """
        file = Path(path)
        for out in output_files(file):
            out.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".parquet":
            self._save_parquet(file)
            return [file]
        broken = next((name for name in self.ids if len(name.splitlines()) > 1), None)
        if broken is not None:
            raise UsageError(f"the id {broken!r} has a line break", "Write a .parquet file.")
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, self.values)
        _, ids = output_files(file)
        write_text(ids, "".join(f"{name}\n" for name in self.ids))
        return [file, ids]

    def _save_parquet(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(self.values.reshape(-1), pa.float32())
        rows = pa.FixedSizeListArray.from_arrays(flat, self.values.shape[1])
        columns = {"id": pa.array(self.ids, pa.string()), "embedding": rows}
        if self.texts is not None:
            columns["text"] = pa.array(self.texts, pa.string())
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns), temporary)


def output_files(path: Path) -> list[Path]:
    """The files that :meth:`Embeddings.save` writes for a path.

    Raises:
        UsageError: a suffix that is none of :data:`SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} ends in none of {', '.join(SUFFIXES)}", "Name the file that way.")
    return [path] if path.suffix == ".parquet" else [path, path.with_suffix(".ids.txt")]


def embed(
    model: AlignedModel | str | Path,
    *,
    images: str | Path | None = None,
    texts: Sequence[str] | str | Path | None = None,
    column: str | None = None,
    raw: bool = False,
    bank: str | Path = NO_BANK,
    cache: Path | None = None,
) -> Embeddings:
    """Embeddings of images, or of texts, with their ids.

    Features are cached by content: a second call costs little.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
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
        UsageError: both of images and texts, or neither.
        DataError: nothing to embed, or what cannot be read.
    """
    if (images is None) == (texts is None):
        both = "images and texts at once" if texts is not None else "neither images nor texts"
        raise UsageError(f"embed is given {both}", "Give one of --images and --texts.")
    if column is not None and images is not None:
        raise UsageError("--column is of captions", "Leave it out, or give --texts.")
    dataset = _images(images) if images is not None else None
    words = _texts(texts, column) if texts is not None else None
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    known = chosen_bank(ready, bank)
    if raw and known is not None:
        raise UsageError("hubness is of embeddings at unit length", "Leave --raw or --bank out.")
    if isinstance(dataset, Path):
        photographs = Photographs.of(ready, dataset, cache=cache, normalize=not raw)
        ids = [sample.id for sample in photographs.samples]
        values = photographs.embeddings
        values = values if known is None else known.extend_images(values)[:]
        return Embeddings(ids, values.numpy(), photographs.unreadable)
    if dataset is not None:
        return _of_store(side_features(ready, "vision", dataset), ready, "image", raw, known)
    assert words is not None
    chosen = column if column is not None else words.columns[0]
    embeddings = _of_store(side_features(ready, "text", words, chosen), ready, "text", raw, known)
    if isinstance(words, ListDataset):
        text_of = {s.id: s.captions[chosen][0] for s in words if isinstance(s, Sample)}
        embeddings = Embeddings(
            embeddings.ids, embeddings.values, embeddings.skipped,
            [text_of[name] for name in embeddings.ids],
        )  # fmt: skip
    return embeddings


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


def _images(source: str | Path) -> Path | Dataset:
    """A folder of photographs, whose features are cached by photograph; else a dataset."""
    dataset = open_dataset(source)
    return Path(source) if isinstance(dataset, ImageFolder) else dataset


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
