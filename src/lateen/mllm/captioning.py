"""A caption column by a vision-language model: ``lateen caption``, which loses no answer."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lateen.data import Dataset, ImageSource, Skip, open_dataset
from lateen.data.samples import content_of_each
from lateen.errors import DataError, ImageError, UsageError
from lateen.mllm.caption_table import CaptionRow, CaptionTable, Kept
from lateen.mllm.captioner import (
    CAPTION_REQUEST,
    Asked,
    Captioned,
    Captioner,
    open_captioner,
    picture_of,
)
from lateen.progress import bar, log

COLUMN = "vlm_caption"
"""The column of captions where nobody says otherwise; readers take it for captions by its name."""
_CHUNK = 256  # images whose bytes are hashed, and may be in memory, at a time
_AHEAD = 4  # times as many images as are asked about at once wait for their turn


def caption(
    source: str | Path | Dataset,
    model: str | Path | Captioner,
    out: str | Path,
    *,
    prompt: str = CAPTION_REQUEST,
    system: str | None = None,
    column: str = COLUMN,
    images: str | Path | None = None,
    image_column: str | None = None,
    split: str | None = None,
    max_side: int = 1024,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int | None = None,
    at_once: int = 8,
    timeout: float = 120.0,
    retry_skipped: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Caption images with a vision-language model, into a table by id beside captions that are
    there.

    An answer is on disk as soon as it came: a call that was killed goes on with what is missing,
    and one whose source has grown asks for what is new, by the content of the images. An image
    that cannot be read, or for which the model gives no caption, has a row with the reason.

    Args:
        source: what :func:`~lateen.data.open_dataset` opens, or a dataset; it need not have
            captions.
        model: ``openai+http://HOST:PORT/v1#MODEL``, the folder or hub id of a multimodal language
            model, or what makes captions.
        out: the Parquet file.
        prompt: what is asked of each image.
        system: what the model is told of its task, if anything.
        column: of the captions in the file.
        images: the folder that the images' names in a table or JSON file are relative to.
        image_column: of a table.
        split: of a source that has splits.
        max_side: pixels of the longer side of an image as it is sent, as JPEG.
        max_tokens: of a caption at most; one that is cut there is kept, with ``finish`` ``length``.
        temperature: 0 for the likeliest token each time; of a server.
        seed: of chance, where the temperature is above 0; of a server.
        at_once: requests in flight; of a server.
        timeout: seconds that an answer may take; of a server.
        retry_skipped: ask once more about images for which there was no caption.
        overwrite: replace captions that were asked for otherwise, or whose images are gone.
        device: where a model runs that is in no server.

    Returns:
        JSON-ready: ``out``, ``column``, ``images``, ``captions``, ``cut`` by the limit,
        ``asked`` now and ``before``, ``skipped`` (reason: count), ``models`` (that answered:
        count), ``tokens`` of what was asked now, ``seconds``.

    Raises:
        UsageError: there are captions that were asked for otherwise; an option that does not fit.
        DataError: there is no such source, or it has no image.
        ModelError: the model cannot be had, or its server fails; what came is kept.
        BusyError: another process makes the same file.
    """
    begin = time.perf_counter()
    asked = Asked(prompt, system, max_side, max_tokens, temperature, seed)
    table = CaptionTable(Path(out), column)
    dataset = open_images(source, images=images, image_column=image_column, split=split)
    captioner = open_captioner(model, asked, at_once=at_once, timeout=timeout, device=device)
    identity = asked.identity(captioner)
    with table.begun(identity, overwrite=overwrite) as kept:
        if not overwrite:
            _check_none_lost(table, kept.before.rows, dataset)
        run = CaptionRun(dataset, captioner, asked, kept, retry_skipped)
        rows = list(run)
        if (table.column, rows) != (kept.before.column, kept.before.rows):
            table.write(rows, identity)
    table.drop_parts()
    return _summary(table, rows, run, time.perf_counter() - begin)


def open_images(
    source: str | Path | Dataset, *, images: str | Path | None = None,
    image_column: str | None = None, split: str | None = None,
) -> Dataset:  # fmt: skip
    """The dataset whose images are captioned; arguments as for :func:`caption`."""
    if not isinstance(source, str | Path):
        return source
    return open_dataset(source, images=images, image_column=image_column, split=split)


@dataclass(frozen=True)
class Item:
    """An image to caption.

    Attributes:
        id: of the sample.
        image: ``None`` where its reader leaves it out.
        content: hash of its bytes; empty where they cannot be read.
        fault: why the reader leaves it out.
    """

    id: str
    image: ImageSource | None
    content: str
    fault: str = ""


def items_of(dataset: Dataset) -> Iterator[Item]:
    """The images of a dataset in order; what the reader leaves out comes with its reason.

    Raises:
        DataError: it has no images.
    """
    found, count = iter(dataset), 0
    while chunk := list(islice(found, _CHUNK)):
        samples = [(each, each.image) for each in chunk if not isinstance(each, Skip)]
        images = [image for _, image in samples if image is not None]
        contents = iter(content_of_each(images))
        for each in chunk:
            if isinstance(each, Skip):
                if each.sample and each.id:
                    yield Item(each.id, None, "", each.reason)
            elif each.image is not None:
                count += 1
                yield Item(each.id, each.image, next(contents))
    if not count:
        raise DataError(f"{dataset.name} has no images", "Give what has images (--images FOLDER).")


class CaptionRun:
    """Goes over a dataset once, and gives a row for each image, in order.

    Args:
        dataset: whose images are captioned.
        captioner: makes captions.
        asked: how they are asked for.
        kept: what is there, and gets what comes.
        retry_skipped: ask once more where there was no caption.

    Attributes:
        asked_now: what came in this run.
        before: how many images were answered for before.
        captioner: as given.
    """

    def __init__(
        self, dataset: Dataset, captioner: Captioner, asked: Asked, kept: Kept, retry_skipped: bool
    ) -> None:
        self.captioner = captioner
        self.asked_now: list[Captioned] = []
        self.before = 0
        self._contents: set[str] = set()  # of what was asked about now
        self._dataset = dataset
        self._asked, self._kept, self._retry = asked, kept, retry_skipped

    def __iter__(self) -> Iterator[CaptionRow]:
        """The rows; of images that wait their turn, a few times as many as are asked about at once
        are read."""
        at_once = self.captioner.at_once
        waiting: deque[tuple[Item, Future[Captioned]]] = deque()
        running: dict[str, Future[Captioned]] = {}  # of two copies of an image one is asked about
        with (
            bar(len(self._dataset), "caption", "image") as progress,
            ThreadPoolExecutor(at_once, "lateen-caption") as pool,
        ):
            try:
                for item in items_of(self._dataset):
                    made = self.known(item)
                    if made is not None:
                        asked = item.content in self._contents or made.finish == "unreadable"
                        self.before += not asked
                        future: Future[Captioned] = Future()
                        future.set_result(made)
                    elif item.content in running:
                        future = running[item.content]
                    else:
                        future = pool.submit(self.ask, item)
                        if item.content:
                            running[item.content] = future
                    waiting.append((item, future))
                    while len(waiting) > _AHEAD * at_once:
                        yield self._row(*waiting.popleft(), running)
                        progress.update()
                while waiting:
                    yield self._row(*waiting.popleft(), running)
                    progress.update()
            finally:
                for _, future in waiting:
                    future.cancel()

    def known(self, item: Item) -> Captioned | None:
        """What is known of an image without a model; ``None`` if it is to be asked about."""
        if item.image is None:
            return Captioned(None, "unreadable", item.fault)
        return self._kept.get(item.content, captions_alone=self._retry)

    def ask(self, item: Item) -> Captioned:
        """What the model makes of an image, which is on disk then.

        Raises:
            ModelError: it fails.
        """
        assert item.image is not None
        try:
            picture = picture_of(item.image, self._asked.max_side)
        except ImageError as error:
            return Captioned(None, "unreadable", error.message)
        made = self.captioner.caption(picture)
        if item.content:
            self._contents.add(item.content)
            self._kept.add(item.content, made)
        self.asked_now.append(made)
        return made

    def _row(
        self, item: Item, future: Future[Captioned], running: dict[str, Future[Captioned]]
    ) -> CaptionRow:
        made = future.result()
        running.pop(item.content, None)
        return CaptionRow(item.id, item.content, made)


def _check_none_lost(table: CaptionTable, before: Iterable[CaptionRow], dataset: Dataset) -> None:
    """See that no caption is thrown away that was paid for.

    Raises:
        UsageError: the table has captions of images that the dataset lacks.
    """
    had = {row.id for row in before if row.made.caption is not None}
    lost = sorted(had - {each.id for each in dataset}) if had else []
    if lost:
        raise UsageError(
            f"{table.path} has captions of {len(lost)} images that {dataset.name} lacks (first "
            f"{lost[0]!r})",
            "Choose another --out, or drop them with --overwrite.",
        )


def _summary(
    table: CaptionTable, rows: list[CaptionRow], run: CaptionRun, seconds: float
) -> dict[str, Any]:
    """What :func:`caption` returns; what a user must know of it is said."""
    now = run.asked_now
    skipped = Counter(row.made.reason for row in rows if row.made.caption is None)
    models = Counter(row.made.model for row in rows if row.made.model)
    cut = sum(row.made.finish == "length" and row.made.caption is not None for row in rows)
    captions = len(rows) - skipped.total()
    if skipped:
        log.warning(
            "%d of %d images have no caption: %s", skipped.total(), len(rows),
            "; ".join(f"{count} × {reason}" for reason, count in skipped.most_common(3)),
        )  # fmt: skip
    if cut:
        log.warning("%d captions are cut by the limit of tokens, and kept as they are "
                    "(finish: length); --max-tokens allows more", cut)  # fmt: skip
    if len(models) > 1:
        log.warning("several models have answered: %s",
                    ", ".join(f"{name} {count}" for name, count in models.items()))  # fmt: skip
    return {
        "task": "caption", "out": str(table.path), "column": table.column, "images": len(rows),
        "captions": captions, "cut": cut, "asked": len(now),
        "before": run.before, "skipped": dict(skipped), "models": dict(models),
        "tokens": tokens_of(now), "seconds": seconds,
    }  # fmt: skip


def tokens_of(made: Iterable[Captioned]) -> dict[str, int]:
    """Tokens of what was given and what came, of those that say."""
    some = list(made)
    return {
        "prompt": sum(each.prompt_tokens or 0 for each in some),
        "answer": sum(each.answer_tokens or 0 for each in some),
    }
