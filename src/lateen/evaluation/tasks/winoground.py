"""Winoground (arXiv:2204.03162): do two images and two captions of the same words find each other?

Published, behind terms to accept, at https://huggingface.co/datasets/facebook/winoground.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from lateen.data.captions import is_missing, row_key
from lateen.data.rows import Row, check_columns
from lateen.data.samples import PEEK, ImageFiles, ImageSource, Skip, find_image_files
from lateen.errors import DataError
from lateen.evaluation.cases import (
    Case,
    CaseSet,
    ZipImage,
    embedded_images,
    listed_images,
    open_tables,
    read_plain,
    score_cases,
    unusable_captions,
)
from lateen.evaluation.features import conditions, find_trained_on
from lateen.evaluation.intervals import resampled, shares
from lateen.evaluation.tables import left_out, titled
from lateen.evaluation.task import Result, Task
from lateen.metrics.choice import PAIR_CHANCE, PairHits, pair_hits, pair_scores
from lateen.model import AlignedModel
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)

TAGS = ("collapsed_tag", "num_main_preds", "secondary_tag", "tag")
"""Columns by which results are told apart."""

_IMAGES = ("image_0", "image_1")
_CAPTIONS = ("caption_0", "caption_1")
_SUFFIXES = ("", ".png", ".jpg")
_WHERE = (
    "Winoground is gated: accept its terms at https://huggingface.co/datasets/facebook/winoground "
    "and run `hf auth login`; then give facebook/winoground, a folder with its Parquet files, or "
    "one with examples.jsonl and images/."
)


def read_winoground(
    source: str | Path, *, images: str | Path | None = None, split: str | None = None
) -> CaseSet:
    """The examples as cases of two images and two captions.

    Args:
        source: ``facebook/winoground``; its Parquet file, or a folder with it; a folder saved by
            ``datasets``; or ``examples.jsonl``, or a folder with it.
        images: for ``examples.jsonl``: the folder of images, or ``images.zip``; beside it if not
            given.
        split: there is only ``test``.

    Raises:
        DataError: nothing there, a column is missing, or there is no example or no image.
        UsageError: there is no such split.
    """
    [table] = open_tables(source, (".parquet", ".jsonl"), split, _WHERE).values()
    check_columns(table.name, table.columns, (*_IMAGES, *_CAPTIONS), _WHERE)
    rows = read_plain(table)
    cases, skips = _cases(rows)
    usable = [case for case in cases if case is not None]
    embedded = embedded_images(table, _IMAGES, cases)
    if embedded is not None:
        return CaseSet(table.name, usable, embedded, skips)
    files = _image_files(Path(source), images, rows)
    members = _members(files.folder)
    sources: dict[str, ImageSource | str] = {}
    for case, row in zip(cases, rows, strict=True):
        if case is not None:
            for image, column in zip(case.images, _IMAGES, strict=True):
                sources[image] = _find(row.cells.get(column), files, members)
    remedy = f"{files.folder} has none of them: give their folder with --images."
    return CaseSet(table.name, usable, listed_images(table.name, sources, remedy), skips)


def _cases(rows: list[Row]) -> tuple[list[Case | None], list[Skip]]:
    """For each row its case, ``None`` where it cannot be used."""
    cases: list[Case | None] = []
    skips: list[Skip] = []
    used: set[str] = set()
    for index, row in enumerate(rows):
        name = row_key(row.cells.get("id")) or str(index)
        captions = [row.cells.get(column) for column in _CAPTIONS]
        fault = row.fault or unusable_captions(captions)
        if not fault and name in used:
            fault = "the id was already used"
        if fault:
            skips.append(Skip(name, fault, row.source))
            cases.append(None)
            continue
        used.add(name)
        groups = {tag: str(row.cells[tag]) for tag in TAGS if not is_missing(row.cells.get(tag))}
        images = (f"{name}/0", f"{name}/1")
        cases.append(Case(name, images, tuple(map(str, captions)), groups))
    return cases, skips


def _image_files(source: Path, given: str | Path | None, rows: Sequence[Row]) -> ImageFiles:
    """The folder of images, or their zip file; names are written without their suffix."""
    folder = source if source.is_dir() else source.parent
    parents = [folder, folder / "data"] if source.is_dir() else [folder]
    usual = [parent / name for parent in parents for name in ("images", "images.zip")]
    cells = [row.cells.get(column) for row in rows[:PEEK] for column in _IMAGES]
    names = [name for name in cells if isinstance(name, str)]
    return find_image_files(given, [*usual, folder], names, _SUFFIXES)


def _find(name: object, files: ImageFiles, members: Mapping[str, str] | None) -> ImageSource | str:
    """The image of that name, or why there is none."""
    if not isinstance(name, str) or is_missing(name):
        return "the row names no image"
    if members is not None:
        member = members.get(name) or members.get(Path(name).stem)
        return ZipImage(files.folder, member) if member else f"{files.folder} has no {name}"
    path = files.find(name)
    return f"there is no {files.folder / name}.png" if path is None else files.source(path)


def _members(path: Path) -> dict[str, str] | None:
    """The images in a zip file by name without suffix; ``None`` for a folder."""
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as zip ({error})", "Download it again.") from error
    return {PurePosixPath(name).stem: name for name in names if not name.startswith("__MACOSX")}


def evaluate_winoground(
    model: AlignedModel,
    *,
    data: str | Path,
    images: str | Path | None = None,
    split: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Text, image and group score in percent, together and by tag (METHODS §1.6).

    Args:
        model: an aligned model.
        data: ``facebook/winoground``, or its files; see
            :func:`~lateen.evaluation.tasks.winoground.read_winoground`.
        images: folder of the images that ``examples.jsonl`` names, or ``images.zip``.
        split: of a hub dataset that has several.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: the data is not there, not to be had without access, or of another form.
    """
    scored = score_cases(model, read_winoground(data, images=images, split=split), cache=cache)
    hits = pair_hits(scored.scores)
    return {
        "task": "winoground",
        **pair_scores(hits),
        **resampled(shares, hits._asdict(), [case.id for case in scored.cases]),
        "chance": PAIR_CHANCE,
        "examples": len(scored.cases),
        **scored.counts(),
        "by_tag": {tag: _by_tag(scored.cases, hits, tag) for tag in TAGS},
        "split": split,
        "trained_on": find_trained_on(model, scored.judged()),
        "conditions": conditions(model, scored.data),
    }


def _by_tag(cases: Sequence[Case], hits: PairHits, tag: str) -> dict[str, dict[str, float]]:
    """Scores of the examples with each value of a tag; some have none."""
    by_value = {}
    for value in sorted({case.groups[tag] for case in cases if tag in case.groups}):
        tagged = torch.tensor([case.groups.get(tag) == value for case in cases])
        scores = pair_scores(PairHits(*(solved[tagged] for solved in hits)))
        by_value[value] = {**scores, "examples": int(tagged.sum())}
    return by_value


def winoground_tables(result: Result) -> Iterator[TableData]:
    """The three scores beside chance, and by what the captions swap."""
    keys = ("text", "image", "group")

    def row(name: str, scores: Result, count: int | None) -> list[Cell]:
        return [name, *(scores[key] for key in keys), count]

    intervals = [[*cells, None] for cells in interval_row(result, keys)]
    tags = result.get("by_tag", {}).get("collapsed_tag", {})
    yield TableData(
        titled("Winoground", result),
        [Column(""), *(Column(f"{key} (%)", 1) for key in keys), Column("examples", 0)],
        [
            row("all", result, result["examples"]), *intervals,
            row("chance", result["chance"], None),
            *(row(tag, scores, scores["examples"]) for tag, scores in tags.items()),
        ],
        ("By what the captions swap. " if tags else "") + left_out(result).strip(),
        reference=tuple(range(1, 2 + len(intervals))),
    )  # fmt: skip


TASK = Task(
    evaluate_winoground,
    {"text": "text", "image": "image", "group": "group"},
    winoground_tables, statistics=shares, order=50,
)  # fmt: skip
