"""MMVP-VLM (arXiv:2401.06209): are images that CLIP takes for alike told apart?

Published, under the MIT licence, at https://huggingface.co/datasets/MMVP/MMVP_VLM: nine visual
patterns of 15 pairs. ``Questions.csv`` has a row per image (Question ID, Type, Statement); images
are in a folder per pattern, named after the question; those of 2k − 1 and 2k are a pair.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.data.hub import is_hub_name
from lateen.data.published import as_templates
from lateen.data.rows import Row, Rows, check_columns, open_rows
from lateen.data.samples import PEEK, ImageFiles, ImageSource, Skip, find_image_files
from lateen.errors import DataError, choices
from lateen.evaluation.cases import (
    Case,
    CaseSet,
    ScoredCases,
    listed_images,
    score_cases,
    unusable_captions,
)
from lateen.evaluation.features import (
    conditions,
    find_trained_on,
    model_key,
    side_features,
)
from lateen.evaluation.intervals import Arrays, Statistics, resampled
from lateen.evaluation.tables import left_out, titled
from lateen.evaluation.task import Result, Task
from lateen.features import Store
from lateen.files import make_folder
from lateen.metrics.choice import PAIR_CHANCE, PairHits, cosines, five_numbers, pair_hits, percent
from lateen.metrics.resampling import Tally
from lateen.model import AlignedModel, open_model
from lateen.model.model import project_rows
from lateen.objects.hub import hub_snapshot
from lateen.report.plots import save_plot
from lateen.report.similarity_plot import similarity_plot
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)

PATTERNS = {
    "Orientation": "Orientation and Direction",
    "Presence": "Presence of Specific Features",
    "State": "State and Condition",
    "Quantity": "Quantity and Count",
    "Spatial": "Positional and Relational Context",
    "Color": "Color and Appearance",
    "Structural Character": "Structural and Physical Characteristics",
    "Text": "Text",
    "Camera Perspective": "Viewpoint and Perspective",
}
"""The pattern that each folder of images stands for, in the paper's order."""

_COLUMNS = ("Question ID", "Type", "Statement")
_QUESTIONS = "Questions.csv"
_FOLDERS = ("MLLM_VLM Images", "MMVP_VLM_Images")
_WHERE = (
    "Get MMVP-VLM with `hf download MMVP/MMVP_VLM --repo-type dataset --local-dir MMVP_VLM` and "
    "give that folder: it has Questions.csv and 'MLLM_VLM Images'."
)
_BY_NAME = {
    name.casefold(): folder for folder, full in PATTERNS.items() for name in (folder, full)
} | {"texts": "Text", "structural characteristics": "Structural Character"}
TEMPLATES = ("a photo of {}",)
"""The prompt of MMVP's own evaluation."""


def read_mmvp(source: str | Path, *, images: str | Path | None = None) -> CaseSet:
    """The pairs as cases of two images and two statements, with the group ``pattern``.

    Args:
        source: the folder, its ``Questions.csv``, or ``MMVP/MMVP_VLM``.
        images: the folder of the patterns' folders; beside ``Questions.csv`` if not given.

    Raises:
        DataError: nothing there, a column is missing, a pattern is not of the nine, or there is no
            pair or no image.
    """
    path = _find_questions(source)
    table = open_rows(path)
    check_columns(table.name, table.columns, _COLUMNS, _WHERE)
    questions, skips = _questions(table)
    cases: list[Case] = []
    names: dict[str, list[str]] = {}
    for first in sorted({number - (number + 1) % 2 for number in questions}):
        pair = [questions.get(first), questions.get(first + 1)]
        rows = [row for row in pair if row is not None]
        if fault := _pair_fault(first, pair):
            skips.append(Skip(f"{first}-{first + 1}", fault, rows[0].source))
            continue
        pattern = _pattern(rows[0])
        numbers = (str(first), str(first + 1))
        statements = tuple(row.cells["Statement"].strip() for row in rows)
        groups = {"pattern": PATTERNS[pattern]}
        cases.append(Case("-".join(numbers), numbers, statements, groups))
        written = str(rows[0].cells["Type"]).strip()
        names |= {number: _file_names(written, pattern, number) for number in numbers}
    usual = [path.parent / name for name in _FOLDERS]
    first_names = itertools.chain.from_iterable(itertools.islice(names.values(), PEEK))
    files = find_image_files(images, [*usual, path.parent], first_names)
    sources = {number: _find(files, some) for number, some in names.items()}
    return CaseSet(str(source), cases, listed_images(str(source), sources, _WHERE), skips)


def _find_questions(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        if not is_hub_name(source):
            raise DataError(f"there is no {source}", _WHERE)
        try:
            path = hub_snapshot(str(source), dataset=True)
        except FileNotFoundError as error:
            raise DataError(f"the hub's dataset {source} cannot be reached", _WHERE) from error
    if not (path / _QUESTIONS).is_file():
        raise DataError(f"{path} has no {_QUESTIONS}", _WHERE)
    return path / _QUESTIONS


def _questions(table: Rows) -> tuple[dict[int, Row], list[Skip]]:
    """Rows by question number."""
    questions: dict[int, Row] = {}
    skips: list[Skip] = []
    for row in table.read(_COLUMNS):
        number = str(row.cells.get("Question ID", "")).strip()
        fault = row.fault
        if not fault and not number.isdecimal():
            fault = f"the Question ID {number!r} is no number"
        elif not fault and int(number) in questions:
            fault = f"the Question ID {number} was already used"
        if fault:
            skips.append(Skip(number, fault, row.source))
        else:
            questions[int(number)] = row
    return questions, skips


def _pair_fault(first: int, pair: list[Row | None]) -> str:
    for number, row in enumerate(pair, start=first):
        if row is None:
            other = 2 * first + 1 - number
            return f"question {other} has no partner: there is no question {number}"
    rows = [row for row in pair if row is not None]
    patterns = list(dict.fromkeys(_pattern(row) for row in rows))
    if len(patterns) > 1:
        return f"questions {first} and {first + 1} are of the patterns {' and '.join(patterns)}"
    return unusable_captions([row.cells.get("Statement") for row in rows])


def _pattern(row: Row) -> str:
    written = str(row.cells.get("Type"))
    name = " ".join(written.replace("_", " ").split())
    if name.casefold() not in _BY_NAME:
        raise DataError(
            f"{row.source} has the pattern {written!r}, which MMVP-VLM does not have",
            choices(name, PATTERNS),
        )
    return _BY_NAME[name.casefold()]


def _file_names(written: str, pattern: str, number: str) -> list[str]:
    """What the file of an image may be called; first the pattern as the table has it."""
    folders = (written, pattern, pattern.replace(" ", "_"), PATTERNS[pattern])
    return [f"{folder}/{number}.jpg" for folder in folders]


def _find(files: ImageFiles, names: Sequence[str]) -> ImageSource | str:
    """The image under the first of these names that is there, or that none is."""
    paths = filter(None, map(files.find, names))
    path = next(paths, None)
    return f"there is no {files.folder / names[1]}" if path is None else files.source(path)


def evaluate_mmvp(
    model: AlignedModel,
    *,
    data: str | Path,
    images: str | Path | None = None,
    templates: Sequence[str] | str | Path = TEMPLATES,
    baseline: AlignedModel | str | Path | None = None,
    out: str | Path | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Pair accuracy in percent per visual pattern and its mean, and how alike paired images are.

    A pair counts when each image picks its own statement (METHODS §1.6). MMVP's released code lets
    each statement pick its image instead: that is ``statement_accuracy``. The cosines within pairs
    are those of the embeddings, of the bare vision encoder's features, and of the baseline's
    embeddings; SAIL (arXiv:2412.04616, figure 5) shows such distributions.

    Args:
        model: an aligned model.
        data: the folder of MMVP-VLM, with Questions.csv and the folder of images.
        images: the folder of the patterns' folders, if it is elsewhere.
        templates: prompts with ``{}`` for the statement; or a file of them, one a
            line; embeddings of several are averaged.
        baseline: another model whose cosines to show: an AlignedModel, or a plain CLIP or SigLIP,
            by folder or hub id.
        out: folder for ``similarity.png``, the distributions of cosines; none if not given.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: the data is not there or of another form, or has a pattern that is not of the
            nine.
    """
    benchmark = read_mmvp(data, images=images)
    other = None if baseline is None else _opened(baseline)
    out = make_folder(out) if out is not None else None
    templates = as_templates(templates)
    scored = score_cases(model, benchmark, templates=templates, cache=cache)
    similar = _similarities(model, scored, benchmark, other, cache)
    result = mmvp_result(model, scored, similar, templates)
    if other is not None:
        result["conditions"]["baseline"] = model_key(other)
    if out is not None:
        result["pictures"] = [str(_draw(similar, model, other, out))]
    return result


def mmvp_result(
    model: AlignedModel, scored: ScoredCases, similar: Mapping[str, Tensor],
    templates: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The result of pairs that are scored already.

    Args:
        model: an aligned model.
        scored: its scores of the pairs.
        similar: cosines ``[pairs]`` within pairs, by what they are of.
        templates: of the scores.
    """
    hits = pair_hits(scored.scores)
    patterns = _patterns(scored.cases, hits)
    return {
        "task": "mmvp",
        "pair_accuracy": _mean(patterns, "pair_accuracy"),
        "statement_accuracy": _mean(patterns, "statement_accuracy"),
        **_intervals(scored.cases, hits),
        "chance": PAIR_CHANCE["text"],
        "pairs": len(scored.cases),
        **scored.counts(),
        "patterns": patterns,
        "similarity": {name: five_numbers(values) for name, values in similar.items()},
        "templates": list(templates),
        "trained_on": find_trained_on(model, scored.judged()),
        "conditions": conditions(model, scored.data),
    }


def _opened(baseline: AlignedModel | str | Path) -> AlignedModel:
    return baseline if isinstance(baseline, AlignedModel) else open_model(baseline)


def _patterns(cases: Sequence[Case], hits: PairHits) -> dict[str, dict[str, float]]:
    """Accuracies by pattern, in the paper's order; one without a pair is left out."""
    accuracies = {}
    for pattern in PATTERNS.values():
        of_pattern = torch.tensor([case.groups["pattern"] == pattern for case in cases])
        if of_pattern.any():
            accuracies[pattern] = {
                "pair_accuracy": percent(hits.text[of_pattern]),
                "statement_accuracy": percent(hits.image[of_pattern]),
                "pairs": int(of_pattern.sum()),
            }
    return accuracies


def _mean(patterns: dict[str, dict[str, float]], number: str) -> float:
    return statistics.fmean(pattern[number] for pattern in patterns.values())


def _intervals(cases: Sequence[Case], hits: PairHits) -> dict[str, Any]:
    """Intervals of both means over patterns, and what each pair contributes."""
    kinds = sorted({case.groups["pattern"] for case in cases})
    pattern = torch.tensor([kinds.index(case.groups["pattern"]) for case in cases])
    arrays = {"pattern": pattern, "text": hits.text, "image": hits.image}
    return resampled(mmvp_statistics, arrays, [case.id for case in cases])


def mmvp_statistics(arrays: Arrays) -> Statistics:
    """Means over patterns of the share of pairs that are solved."""
    pair, pattern = np.arange(len(arrays["pattern"])), arrays["pattern"]
    return {
        "pair_accuracy": Tally(pair, arrays["text"], group=pattern),
        "statement_accuracy": Tally(pair, arrays["image"], group=pattern),
    }


def _similarities(
    model: AlignedModel,
    scored: ScoredCases,
    benchmark: CaseSet,
    baseline: AlignedModel | None,
    cache: Path | None,
) -> dict[str, Tensor]:
    """Image–image cosines ``[pairs]`` of the model, of its encoder, and of the baseline."""
    similar = {
        "model": within_pairs(model.project_image, scored.images, scored.cases),
        "encoder": within_pairs(_as_is, scored.images, scored.cases),
    }
    if baseline is not None:
        folder = cache and cache / "baseline-images"
        store = side_features(baseline, "vision", benchmark.images, folder=folder)
        similar["baseline"] = within_pairs(baseline.project_image, store, scored.cases)
    return similar


def within_pairs(
    project: Callable[[Tensor], Tensor], store: Store, cases: Sequence[Case]
) -> Tensor:
    """Cosines ``[n]`` of the pairs of which both images have features.

    Args:
        project: what is made of the features.
        store: the features of all images.
        cases: of two images each.
    """
    rows = {sample: row for row, sample in enumerate(store.ids)}
    pairs = [[rows[i] for i in case.images] for case in cases if rows.keys() >= {*case.images}]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return cosines(project_rows(project, store, first), project_rows(project, store, second))


def _as_is(features: Tensor) -> Tensor:
    return features


def _draw(
    similar: dict[str, Tensor], model: AlignedModel, baseline: AlignedModel | None, out: Path
) -> Path:
    names = {"model": "aligned model", "encoder": f"its encoder, {_encoder(model)}"}
    if baseline is not None:
        names["baseline"] = f"baseline, {_encoder(baseline)}"
    shown = {names[key]: values.tolist() for key, values in similar.items()}
    path = out / "similarity.png"
    save_plot(similarity_plot(shown), path)
    return path


def _encoder(model: AlignedModel) -> str:
    info = model.vision_encoder.info
    return f"{info.id.rstrip('/').rpartition('/')[2]} ({info.pooling})"


def mmvp_tables(result: Result) -> Iterator[TableData]:
    """Pairs solved by pattern beside chance, and how alike paired images are."""
    keys = ("pair_accuracy", "statement_accuracy")
    intervals = [[*cells, None] for cells in interval_row(result, keys)]
    rows: list[list[Cell]] = [
        ["mean", *(result[key] for key in keys), result["pairs"]],
        *intervals,
        ["chance", result["chance"], result["chance"], None],
        *([name, *(part[key] for key in keys), part["pairs"]]
          for name, part in result["patterns"].items()),
    ]  # fmt: skip
    yield TableData(
        titled("MMVP-VLM", result),
        [Column("pattern"), Column("pairs solved (%)", 1), Column("by statement (%)", 1),
         Column("pairs", 0)],
        rows,
        "Solved: each image picks its own statement. By statement: each statement picks its image, "
        "as the released code has it." + left_out(result),
        reference=tuple(range(1, 2 + len(intervals))),
    )  # fmt: skip
    numbers = ("min", "q25", "median", "q75", "max")
    heads = ("lowest", "lower quarter", "median", "upper quarter", "highest")
    yield TableData(
        "Cosine of the two images of a pair",
        [Column(""), *(Column(head, 3) for head in heads)],
        [
            [name, *(values[key] for key in numbers)]
            for name, values in result["similarity"].items()
        ],
        "Near 1, the encoder takes the images for alike.",
    )


TASK = Task(
    evaluate_mmvp,
    {"pair accuracy": "pair_accuracy"},
    mmvp_tables, statistics=mmvp_statistics, order=70,
)  # fmt: skip
