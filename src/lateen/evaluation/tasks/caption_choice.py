"""SugarCrepe, ARO and their like: is the right caption nearer to its image than wrong ones?

* SugarCrepe (arXiv:2306.14610, MIT, https://github.com/RAIVNLab/sugar-crepe): a JSON file per kind
  of change (``replace_obj.json``, …) over the images of COCO val2017.
* ARO (arXiv:2210.01936, MIT, https://github.com/mertyg/vision-language-models-are-bows):
  ``visual_genome_relation.json`` and ``visual_genome_attribution.json``, each entry with the box of
  the image that it is about; COCO-Order and Flickr30k-Order, whose wrong captions its code makes at
  random, as that code has them in memory (``image``, ``caption_options``), or as others have
  published them (``correct_caption``, ``hard_text_1``, …).
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data.rows import Row, Rows
from lateen.data.samples import (
    PEEK,
    ImageFiles,
    ImageSource,
    Skip,
    find_image_files,
    is_unicode,
    sample_id,
)
from lateen.errors import DataError
from lateen.evaluation.cases import (
    Case,
    CaseSet,
    CroppedImage,
    ScoredCases,
    embedded_images,
    listed_images,
    open_tables,
    read_plain,
    score_cases,
    unusable_captions,
)
from lateen.evaluation.features import JudgedImages, conditions, find_trained_on
from lateen.evaluation.intervals import Arrays, Statistics, resampled
from lateen.evaluation.tables import left_out, titled
from lateen.evaluation.task import Result, Task
from lateen.files import content_key
from lateen.metrics.choice import choice_hits, percent
from lateen.metrics.resampling import Tally
from lateen.model import AlignedModel
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)

_CAPTIONS = (("caption", "negative_caption"), ("true_caption", "false_caption"))
_OPTIONS = "caption_options"
_RIGHT, _HARD = "correct_caption", re.compile(r"hard_text_\d+")
_IMAGES = ("filename", "image_path", "image", "images")
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_GROUP_COLUMNS = ("relation_name", "attributes")
_WHERE = (
    "Give SugarCrepe's JSON files (https://github.com/RAIVNLab/sugar-crepe, folder data), ARO's "
    "(https://github.com/mertyg/vision-language-models-are-bows), or a table with an image and its "
    "captions as caption and negative_caption, as true_caption and false_caption, or as a list "
    "caption_options whose first is the right one."
)
_IMAGES_WHERE = (
    "Give the folder of the images with --images: COCO's val2017 for SugarCrepe, images for ARO."
)
# Groups within a file that ARO averages over, and how many examples one needs to be counted.
_GROUPS = {"relation_name": 1, "attributes": 25}


def read_caption_choice(
    source: str | Path, *, images: str | Path | None = None, split: str | None = None
) -> list[CaseSet]:
    """One set of cases per file, each case of one image with its right caption first.

    Each case has the group ``category``, the name of its file; those of ARO's Visual Genome also
    ``relation_name`` or ``attributes``.

    Args:
        source: a JSON file or a folder of such; Parquet or JSON lines; or a hub dataset.
        images: the folder that names of images are relative to; if not given, the folder of
            ``source`` or a usual place below it.
        split: of a hub dataset that has several.

    Raises:
        DataError: nothing there, other columns, or no example or no image.
        UsageError: there is no such split.
    """
    tables = open_tables(source, (".json", ".parquet", ".jsonl"), split, _WHERE)
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    return [_read(name, table, folder, images) for name, table in tables.items()]


def _read(category: str, table: Rows, folder: Path, images: str | Path | None) -> CaseSet:
    columns = _caption_columns(table.columns)
    image = next((name for name in _IMAGES if name in table.columns), None)
    if not columns or image is None:
        raise DataError(
            f"{table.name} has no {'image with several captions' if image else 'image column'}; "
            f"its columns are {', '.join(table.columns) or '(none)'}",
            _WHERE,
        )
    rows = read_plain(table)
    if table.embedded(image):
        names = [f"{category}/{index}" for index in range(len(rows))]
    else:
        names = [_image_name(row, image) for row in rows]
    cases, skips = _cases(category, rows, names, columns)
    usable = [case for case in cases if case is not None]
    embedded = embedded_images(table, [image], cases)
    if embedded is not None:
        return CaseSet(table.name, usable, embedded, skips)
    files = _image_files(folder, images, names)
    sources: dict[str, ImageSource | str] = {}
    for case, row, name in zip(cases, rows, names, strict=True):
        if case is not None and case.images[0] not in sources:
            sources[case.images[0]] = _find(files, name, _box(row))
    return CaseSet(table.name, usable, listed_images(table.name, sources, _IMAGES_WHERE), skips)


def _caption_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of captions, the right one's first."""
    if _OPTIONS in columns:
        return (_OPTIONS,)
    hard = sorted(filter(_HARD.fullmatch, columns))
    if _RIGHT in columns and hard:
        return (_RIGHT, *hard)
    present = (pair for pair in _CAPTIONS if set(pair) <= set(columns))
    return next(present, ())


def _cases(
    category: str, rows: Sequence[Row], names: Sequence[str], columns: Sequence[str]
) -> tuple[list[Case | None], list[Skip]]:
    """For each row its case, ``None`` where it cannot be used."""
    cases: list[Case | None] = []
    skips: list[Skip] = []
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        captions = [row.cells.get(column) for column in columns]
        if list(columns) == [_OPTIONS]:
            captions = captions[0] if isinstance(captions[0], list) else []
        fault = row.fault or ("" if name else "the entry names no image")
        fault = fault or unusable_captions(captions)
        if not fault and len(captions) < 2:
            fault = "there are not two captions to choose from"
        if fault:
            skips.append(Skip(f"{category}/{index}", fault, row.source))
            cases.append(None)
            continue
        box = _box(row)
        image = f"{name}{list(box)}" if box else name
        texts = tuple(str(caption) for caption in captions)
        groups = {"category": category, **_groups_of(row.cells)}
        cases.append(Case(f"{category}/{index}", (image,), texts, groups))
    return cases, skips


def _groups_of(cells: Mapping[str, Any]) -> dict[str, str]:
    """What ARO's own results are divided by."""
    groups = {}
    for name in _GROUP_COLUMNS:
        value = cells.get(name)
        if isinstance(value, list) and value:
            groups[name] = "_".join(map(str, value))
        elif isinstance(value, str) and value:
            groups[name] = value
    return groups


def _image_name(row: Row, column: str) -> str:
    value = row.cells.get(column)
    return sample_id(value) if isinstance(value, str) and is_unicode(value) else ""


def _box(row: Row) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom."""
    values = [row.cells.get(name) for name in _BOX]
    numbers = [int(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    if len(numbers) < len(values):
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height


def _image_files(folder: Path, given: str | Path | None, names: Sequence[str]) -> ImageFiles:
    inside = ("", "images", "val2017", "images/val2017", "coco/images/val2017", "coco/val2017")
    usual = [parent / name for parent in (folder, folder.parent) for name in inside]
    return find_image_files(given, usual, itertools.islice(filter(None, names), PEEK))


def _find(files: ImageFiles, name: str, box: tuple[int, int, int, int] | None) -> ImageSource | str:
    """The image, or the box of it that an example is about; or why there is none."""
    path = files.find(name)
    if path is None:
        return f"there is no {files.folder / name}"
    image = files.source(path)
    return CroppedImage(image, box) if box else image


def evaluate_caption_choice(
    model: AlignedModel,
    *,
    data: str | Path,
    images: str | Path | None = None,
    split: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Accuracy in percent per file (category) and its mean over files, beside chance.

    Where examples have a relation or attributes (ARO's Visual Genome sets) a category also has
    ``by_group`` and ``macro_accuracy``, the mean over relations, or over pairs of attributes with
    at least 25 examples. ARO's authors leave out relations that hold both ways ("next to"); here
    all are in it.

    Args:
        model: an aligned model.
        data: SugarCrepe's or ARO's files; see
            :func:`~lateen.evaluation.tasks.caption_choice.read_caption_choice`.
        images: folder of the images; a usual place beside ``data`` if not given.
        split: of a hub dataset that has several.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: the data or the images are not there, or of another form.
    """
    categories, keys, counts = {}, [], []
    hits: dict[str, Tensor] = {}
    cases: list[Case] = []
    judged = JudgedImages()
    for benchmark in read_caption_choice(data, images=images, split=split):
        name = benchmark.cases[0].groups["category"]
        scored = score_cases(model, benchmark, cache=cache and cache / name)
        hits[name] = choice_hits(scored.scores[:, 0])
        categories[name] = _category(scored, hits[name])
        cases += scored.cases
        keys.append(scored.data)
        counts.append(scored.counts())
        judged |= scored.judged()
    return {
        "task": "caption-choice",
        "accuracy": _mean(categories, "accuracy"),
        **_intervals(cases, hits),
        "chance": _mean(categories, "chance"),
        "examples": sum(category["examples"] for category in categories.values()),
        "skipped": sum(count["skipped"] for count in counts),
        "left_out": sum(count["left_out"] for count in counts),
        "left_out_examples": [example for c in counts for example in c["left_out_examples"]],
        "categories": categories,
        "split": split,
        "trained_on": find_trained_on(model, judged),
        "conditions": conditions(model, content_key(keys)),
    }


def _intervals(cases: Sequence[Case], hits: Mapping[str, Tensor]) -> dict[str, Any]:
    """The interval of the mean over categories. Examples of one image are drawn together.

    Args:
        cases: of all categories, in their order.
        hits: by category, which of its cases are right.
    """
    images = list(dict.fromkeys(case.images[0] for case in cases))
    index_of = {image: index for index, image in enumerate(images)}
    categories = torch.arange(len(hits)).repeat_interleave(
        torch.tensor([len(right) for right in hits.values()])
    )
    arrays = {
        "image": [index_of[case.images[0]] for case in cases],
        "category": categories,
        "right": torch.cat(list(hits.values())),
    }
    return resampled(caption_choice_statistics, arrays, images)


def caption_choice_statistics(arrays: Arrays) -> Statistics:
    """The mean over categories of the share of right choices."""
    return {"accuracy": Tally(arrays["image"], arrays["right"], group=arrays["category"])}


def _category(scored: ScoredCases, hits: Tensor) -> dict[str, Any]:
    chances = [100 / len(case.captions) for case in scored.cases]
    result: dict[str, Any] = {
        "accuracy": percent(hits),
        "chance": statistics.fmean(chances),
        "examples": len(hits),
        "left_out": len(scored.left_out),
    }
    for kind, least in _GROUPS.items():
        groups = _groups(scored.cases, hits, kind)
        counted = [group["accuracy"] for group in groups.values() if group["examples"] >= least]
        if counted:
            result |= {"macro_accuracy": statistics.fmean(counted), "by_group": groups}
    return result


def _groups(cases: Sequence[Case], hits: Tensor, kind: str) -> dict[str, dict[str, float]]:
    rows: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        if kind in case.groups:
            rows.setdefault(case.groups[kind], []).append(row)
    return {
        name: {"accuracy": percent(hits[torch.tensor(of_group)]), "examples": len(of_group)}
        for name, of_group in sorted(rows.items())
    }


def _mean(categories: dict[str, dict[str, Any]], number: str) -> float:
    return statistics.fmean(category[number] for category in categories.values())


def caption_choice_tables(result: Result) -> Iterator[TableData]:
    """Accuracy by category beside chance."""
    parts = result["categories"]
    rows: list[list[Cell]] = [
        [name, part["accuracy"], part["chance"], part["examples"]] for name, part in parts.items()
    ]
    if len(parts) > 1:
        rows.append(["mean", result["accuracy"], result["chance"], result["examples"]])
    rows += [[*row, None, None] for row in interval_row(result, ("accuracy",))]
    macro = [part.get("macro_accuracy") for part in parts.values()]
    columns = [Column(""), Column("accuracy (%)", 1), Column("chance (%)", 1)]
    if any(value is not None for value in macro):
        columns.append(Column("mean over groups (%)", 1))
        for row, value in zip(rows, [*macro, None], strict=False):
            row.insert(3, value)
        for row in rows[len(macro) + 1 :]:
            row.insert(3, None)
    yield TableData(
        titled("Right caption against wrong ones", result), [*columns, Column("examples", 0)],
        rows, left_out(result).strip(),
    )  # fmt: skip


TASK = Task(
    evaluate_caption_choice,
    {"accuracy": "accuracy"},
    caption_choice_tables, statistics=caption_choice_statistics, order=60,
)  # fmt: skip
