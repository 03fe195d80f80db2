"""MMVP-VLM (arXiv:2401.06209): pairs of images that CLIP takes for alike, with a statement each.

Published, under the MIT licence, at https://huggingface.co/datasets/MMVP/MMVP_VLM: nine visual
patterns of 15 pairs. ``Questions.csv`` has a row per image (Question ID, Type, Statement); images
are in a folder per pattern, named after the question; those of 2k − 1 and 2k are a pair.
"""

from __future__ import annotations

from pathlib import Path

from lateen.data.benchmark import FileTable, check_columns
from lateen.data.cases import Case, CaseImages, CaseSet, require_images, unusable_captions
from lateen.data.hub import is_hub_name
from lateen.data.rows import Row
from lateen.data.sample import FileImage, ImageSource, Skip
from lateen.errors import DataError, choices

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
    table = FileTable(path)
    check_columns(table, _COLUMNS, _WHERE)
    root = _find_root(path.parent, images)
    questions, skips = _questions(table)
    cases: list[Case] = []
    found: dict[str, ImageSource | str] = {}
    for first in sorted({number - (number + 1) % 2 for number in questions}):
        pair = [questions.get(first), questions.get(first + 1)]
        rows = [row for row in pair if row is not None]
        if fault := _pair_fault(first, pair):
            skips.append(Skip(f"{first}-{first + 1}", fault, rows[0].source))
            continue
        pattern = _pattern(rows[0])
        numbers = (str(first), str(first + 1))
        statements = tuple(row.cells["Statement"].strip() for row in rows)
        full = {"pattern": PATTERNS[pattern]}
        cases.append(Case("-".join(numbers), numbers, statements, full))
        for number in numbers:
            found[number] = _find(root, str(rows[0].cells["Type"]).strip(), pattern, number)
    require_images(str(source), found, _WHERE)
    return CaseSet(str(source), cases, CaseImages.listed(str(source), found), skips)


def _find_questions(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        if not is_hub_name(source):
            raise DataError(f"there is no {source}", _WHERE)
        path = _download(str(source))
    if not (path / _QUESTIONS).is_file():
        raise DataError(f"{path} has no {_QUESTIONS}", _WHERE)
    return path / _QUESTIONS


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except Exception as error:  # the hub client raises many kinds; all mean "not here"
        raise DataError(f"the hub's dataset {name} cannot be reached", _WHERE) from error


def _find_root(folder: Path, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    places = [folder / name for name in _FOLDERS]
    return next((place for place in places if place.is_dir()), folder)


def _questions(table: FileTable) -> tuple[dict[int, Row], list[Skip]]:
    """Rows by question number."""
    questions: dict[int, Row] = {}
    skips: list[Skip] = []
    for row in table.rows():
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


def _find(root: Path, written: str, pattern: str, number: str) -> ImageSource | str:
    folders = (written, pattern, pattern.replace(" ", "_"), PATTERNS[pattern])
    for path in (root / folder / f"{number}.jpg" for folder in folders):
        if path.is_file():
            return FileImage(path)
    return f"there is no {root / pattern / number}.jpg"
