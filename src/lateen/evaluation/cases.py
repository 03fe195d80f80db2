"""Benchmarks that choose among captions or images: their examples, their images, and all scores."""

from __future__ import annotations

import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data.captions import caption_fault, is_missing
from lateen.data.fingerprint import combine, file_hashes
from lateen.data.hub import HubRows, is_hub_name, is_saved_dataset, load_rows
from lateen.data.images import decode_image
from lateen.data.prompts import check_templates
from lateen.data.rows import TABLE_SUFFIXES, Row, Rows, open_rows
from lateen.data.samples import (
    Dataset,
    FileImage,
    ImageSource,
    ListDataset,
    Sample,
    Skip,
    image_file,
    refuse_split,
    require_image,
)
from lateen.errors import DataError, ImageError
from lateen.evaluation.features import JudgedImages, side_features
from lateen.features import Store
from lateen.files import content_key
from lateen.metrics import class_embeddings
from lateen.model import AlignedModel
from lateen.model.model import project_rows

_CHUNK = 1024  # cases whose embeddings are multiplied at a time
_MOST_LISTED = 20
_SUFFIXES = (".json", *TABLE_SUFFIXES)  # of the tables that benchmarks are published in


def open_tables(
    source: str | Path, suffixes: Sequence[str], split: str | None, where: str
) -> dict[str, Rows]:
    """The table or tables in a file, a folder (or its subfolder ``data``), or a hub dataset.

    Args:
        source: of these.
        suffixes: of files to look for in a folder, the first that any has; each file of JSON is a
            table of its own, those of other kinds are one.
        split: of a hub dataset; of Parquet files, what their names begin with.
        where: to get the benchmark, in one sentence.

    Returns:
        The tables by name: the file's without its suffix, or the last part of the source.

    Raises:
        DataError: there is no such thing.
        UsageError: a hub dataset has no such split.
    """
    path = Path(source)
    if path.is_dir() and not is_saved_dataset(path):
        return _in_folder(path, suffixes, split, where)
    if path.is_file():
        refuse_split(path, split)
        return {path.stem: open_rows(path, suffixes=_SUFFIXES)}
    if path.is_dir() or is_hub_name(source):
        try:
            return {path.name: HubRows(str(source), load_rows(source, split))}
        except DataError as error:  # this benchmark's own remedy says more
            raise DataError(error.message, where) from error
    raise DataError(f"there is no {source}", where)


def read_plain(rows: Rows) -> list[Row]:
    """Every row of a table, without the images in it."""
    return list(rows.read([column for column in rows.columns if not rows.embedded(column)]))


def _in_folder(
    folder: Path, suffixes: Sequence[str], split: str | None, where: str
) -> dict[str, Rows]:
    for parent, suffix in itertools.product((folder, folder / "data"), suffixes):
        paths = sorted(path for path in parent.glob(f"*{suffix}") if not path.name.startswith("."))
        if suffix != ".parquet" and paths:
            refuse_split(folder, split)
        if suffix == ".json" and paths:
            return {path.stem: open_rows(path, suffixes=_SUFFIXES) for path in paths}
        if suffix == ".parquet" and split is not None:
            paths = [path for path in paths if path.name.startswith(split)]
        if paths:
            return {folder.name: open_rows(*paths)}
    of_split = f" of split {split!r}" if split else ""
    raise DataError(f"{folder} has no file{of_split} that ends in {' or '.join(suffixes)}", where)


@dataclass(frozen=True)
class Case:
    """One example.

    Attributes:
        id: unique within a benchmark.
        images: ids of its images.
        captions: its captions; with as many images, each belongs to the image in its place, else
            the first is the right one.
        groups: what it is counted under: a category, a tag, a pattern; by kind.
    """

    id: str
    images: tuple[str, ...]
    captions: tuple[str, ...]
    groups: Mapping[str, str] = field(default_factory=dict)


def listed_images(name: str, images: Mapping[str, ImageSource | str], remedy: str) -> ListDataset:
    """A benchmark's images in files of their own.

    Args:
        name: of the benchmark.
        images: by id; in place of an image the reason why there is none.
        remedy: how to say where the images are.

    Raises:
        DataError: there are images, and not one is there.
    """
    faults = ((sample, i if isinstance(i, str) else "") for sample, i in images.items())
    require_image(name, faults, remedy)
    sources = (image for image in images.values() if not isinstance(image, str))
    files = dict.fromkeys(path for image in sources if (path := image_file(image)))
    samples = [
        Skip(sample, image, name) if isinstance(image, str) else Sample(sample, image)
        for sample, image in images.items()
    ]
    return ListDataset(name, samples, lambda: combine([*images, *file_hashes(files)]))


def embedded_images(
    rows: Rows, columns: Sequence[str], cases: Sequence[Case | None]
) -> ListDataset | None:
    """A benchmark's images within its table; ``None`` where a column names files instead.

    Args:
        rows: the table.
        columns: one for each image of a case.
        cases: for each row its case, ``None`` where it cannot be used.
    """
    if not all(rows.embedded(column) for column in columns):
        return None
    usable = [index for index, case in enumerate(cases) if case is not None]
    ids = [image for case in cases if case is not None for image in case.images]

    def samples() -> Iterator[Sample]:
        # The columns advance together, so that few images are in memory at a time.
        images = [rows.embedded(column, f" {column}") for column in columns]
        sources = zip(*(column.sources(usable) for column in images if column), strict=True)
        return map(Sample, ids, itertools.chain.from_iterable(sources))

    return ListDataset(
        rows.name, samples, lambda: combine([*ids, *rows.hashes()]), count=len(ids)
    )  # fmt: skip


@dataclass(frozen=True)
class CaseSet:
    """A benchmark.

    Attributes:
        name: what the user called it.
        cases: those that can be used, as far as it can be said without opening an image.
        images: all of their images.
        skips: of examples that cannot be used.
    """

    name: str
    cases: list[Case]
    images: Dataset
    skips: list[Skip]

    @property
    def captions(self) -> list[str]:
        """The captions of all cases, each once."""
        return list(dict.fromkeys(text for case in self.cases for text in case.captions))

    @property
    def key(self) -> str:
        """Content key (64 hex digits) of images and cases."""
        cases = [[c.id, c.images, c.captions, dict(c.groups)] for c in self.cases]
        return content_key([self.images.fingerprint, cases])

    def __post_init__(self) -> None:
        if not self.cases:
            named = "; ".join(f"{skip.source}: {skip.reason}" for skip in self.skips[:1])
            raise DataError(
                f"{self.name} has no example that can be used"
                + (f" ({len(self.skips)} cannot: {named})" if named else ""),
                "Download it again.",
            )


def listed_captions(name: str, captions: Sequence[str]) -> ListDataset:
    """Captions without images; ids count from 0."""
    samples = [Sample(str(i), None, {"caption": (text,)}) for i, text in enumerate(captions)]
    return ListDataset(name, samples, lambda: combine(captions), ("caption",))


@dataclass(frozen=True, slots=True)
class CroppedImage:
    """A box within an image.

    Attributes:
        whole: the image.
        box: left, top, right, bottom in pixels of the upright image.
    """

    whole: FileImage
    box: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """The path with the box."""
        return f"{self.whole.name}{list(self.box)}"

    def read(self) -> bytes:
        """The box as PNG, black where it reaches beyond the image, as ARO's own code has it.

        A box without anything of the image is an ``OSError``, as is an image that is damaged.
        """
        try:
            whole = decode_image(self.whole, whole=True)  # the box counts its pixels
        except ImageError as error:
            raise OSError(error.message) from error
        left, top, right, bottom = self.box
        if max(left, 0) >= min(right, whole.width) or max(top, 0) >= min(bottom, whole.height):
            raise OSError(f"the box {list(self.box)} has nothing of its {list(whole.size)} pixels")
        buffer = io.BytesIO()
        whole.crop(self.box).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ZipImage:
    """An image in a zip file."""

    path: Path
    member: str

    @property
    def name(self) -> str:
        """``images.zip:member``."""
        return f"{self.path}:{self.member}"

    def read(self) -> bytes:
        """The member's bytes; a damaged zip is an ``OSError``."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.member)
        except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, RuntimeError) as error:
            raise OSError(str(error) or "the zip is damaged") from error


def unusable_captions(captions: Sequence[object]) -> str:
    """Why one of the captions cannot be used; empty if all can."""
    for caption in captions:
        if not isinstance(caption, str) or is_missing(caption):
            return "a caption is missing"
        if fault := caption_fault(caption):
            return fault.replace("the caption", "a caption")
    return ""


@dataclass(frozen=True)
class ScoredCases:
    """Examples with their scores.

    Attributes:
        cases: those that could be scored.
        scores: ``[cases, images, captions]`` cosines on the CPU, −∞ where a case has fewer captions
            than another.
        left_out: why each other example could not: ``id``, ``reason``, ``source``.
        skipped: how many images, captions and rows could not be used.
        images: the features of all images.
        data: content key of the images and captions.
    """

    cases: list[Case]
    scores: Tensor
    left_out: list[dict[str, str]]
    skipped: int
    images: Store
    data: str

    def judged(self) -> JudgedImages:
        """The images of the cases."""
        used = {image for case in self.cases for image in case.images}
        return JudgedImages.of(
            self.images, [row for row, sample in enumerate(self.images.ids) if sample in used]
        )

    def counts(self) -> dict[str, Any]:
        """What every result says of those left out; the first few by name."""
        return {
            "skipped": self.skipped,
            "left_out": len(self.left_out),
            "left_out_examples": self.left_out[:_MOST_LISTED],
        }


def score_cases(
    model: AlignedModel,
    benchmark: CaseSet,
    *,
    templates: Sequence[str] = ("{}",),
    cache: Path | None = None,
    texts: Store | None = None,
) -> ScoredCases:
    """Cosines of each case's images with its captions.

    A case that lacks an image or a caption is left out, with the reason.

    Args:
        model: an aligned model.
        benchmark: the benchmark.
        templates: prompts with ``{}`` for the caption; embeddings of several are averaged.
        cache: where to keep features; lateen's cache folder if not given.
        texts: what :func:`prompt_features` made with the same templates, where it is there already.

    Raises:
        UsageError: a template has no ``{}``, or there is none.
        DataError: not one case could be scored.
    """
    check_templates(templates or [""], "caption")
    _ = model.vision_encoder, model.text_encoder  # what cannot be loaded fails here
    images = side_features(model, "vision", benchmark.images, folder=cache and cache / "images")
    if texts is None:
        texts = prompt_features(model, benchmark, templates=templates, cache=cache)
    image_rows = {sample: row for row, sample in enumerate(images.ids)}
    prompt_rows = _prompt_rows(benchmark.captions, texts, len(templates))
    cases, left_out = _divide(benchmark, images, image_rows, prompt_rows)
    text_rows = {caption: row for row, caption in enumerate(prompt_rows)}
    scores = _scores(
        project_rows(model.project_image, images, range(len(images))),
        _embed_captions(model, texts, prompt_rows),
        [[image_rows[image] for image in case.images] for case in cases],
        [[text_rows[text] for text in case.captions] for case in cases],
    )
    lost = {(skip["id"], skip["source"]) for skip in images.skipped + texts.skipped}
    count = len(lost) + len(benchmark.skips)
    return ScoredCases(cases, scores, left_out, count, images, benchmark.key)


def prompt_features(
    model: AlignedModel, benchmark: CaseSet, *, templates: Sequence[str], cache: Path | None = None
) -> Store:
    """The features of a benchmark's captions in every template: the text half of what
    :func:`score_cases` encodes."""
    prompts = [
        template.replace("{}", text) for text in benchmark.captions for template in templates
    ]
    return side_features(
        model, "text", listed_captions(benchmark.name, prompts), "caption",
        folder=cache and cache / "captions",
    )  # fmt: skip


def _prompt_rows(captions: Sequence[str], texts: Store, templates: int) -> dict[str, list[int]]:
    """For each caption that can be used, the rows of its prompts."""
    rows = {int(sample): row for row, sample in enumerate(texts.ids)}
    by_caption = {}
    for index, caption in enumerate(captions):
        prompt_rows = [rows.get(index * templates + offset) for offset in range(templates)]
        encoded = [row for row in prompt_rows if row is not None]
        if len(encoded) == templates:
            by_caption[caption] = encoded
    return by_caption


def _divide(
    benchmark: CaseSet, images: Store, image_rows: Mapping[str, int], captions: Mapping[str, Any]
) -> tuple[list[Case], list[dict[str, str]]]:
    """The cases that can be scored, and why others cannot."""
    reasons = {skip["id"]: skip["reason"] for skip in images.skipped}
    cases: list[Case] = []
    left_out = [{"id": s.id, "reason": s.reason, "source": s.source} for s in benchmark.skips]
    for case in benchmark.cases:
        lost = [image for image in case.images if image not in image_rows]
        if lost:
            reason = f"image {lost[0]}: {reasons.get(lost[0], 'it has no features')}"
        elif not all(caption in captions for caption in case.captions):
            reason = "a caption could not be encoded"
        else:
            cases.append(case)
            continue
        left_out.append({"id": case.id, "reason": reason, "source": benchmark.name})
    if not cases:
        raise DataError(
            f"not one of the {len(left_out)} examples of {benchmark.name} can be scored (the "
            f"first: {left_out[0]['reason']})",
            "Check its images.",
        )
    return cases, left_out


def _embed_captions(model: AlignedModel, texts: Store, rows: Mapping[str, list[int]]) -> Tensor:
    """Embeddings ``[captions, dim]``, of several prompts their mean."""
    flat = [row for prompt_rows in rows.values() for row in prompt_rows]
    embeddings = project_rows(model.project_text, texts, flat)
    prompts = len(flat) // len(rows)
    if prompts == 1:
        return embeddings
    return class_embeddings(embeddings.view(len(rows), prompts, -1))


def _scores(
    image: Tensor, text: Tensor, images: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> Tensor:
    """Cosines ``[cases, images, captions]`` of embeddings ``[n, dim]`` and ``[m, dim]``.

    Args:
        image: of the images.
        text: of the captions.
        images: each case's rows of ``image``, equally many.
        texts: each case's rows of ``text``.
    """
    most = max(map(len, texts))
    rows = torch.tensor([[*own, *[-1] * (most - len(own))] for own in texts])
    parts = []
    for start in range(0, len(rows), _CHUNK):
        left = image[torch.tensor(images[start : start + _CHUNK])]
        right = rows[start : start + _CHUNK]
        # Not a matrix product, which may round equal pairs differently, so that a tie is none.
        cosines = (left[:, :, None] * text[right][:, None]).sum(-1)
        parts.append(cosines.masked_fill((right < 0)[:, None], -torch.inf))
    return torch.cat(parts)
