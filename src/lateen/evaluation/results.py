"""Results on disk, put together by model, and what each is about."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lateen.errors import DataError, LateenError
from lateen.evaluation.tables import subject_and_split
from lateen.evaluation.task import RESULT_KINDS, Result
from lateen.files import read_json

Key = tuple[str, str]
MADE_BY = "Give what `lateen evaluate --out` or `lateen mllm evaluate --out` or `lateen run` wrote."


@dataclass(frozen=True)
class SavedResult:
    """A result.

    Attributes:
        path: the file that it is in.
        result: itself.
        folder: that was asked for, or that of the file that was.
        key: the task, and the name of what was evaluated on.
    """

    path: Path
    result: Result
    folder: Path
    key: Key

    @property
    def model(self) -> str:
        """Content key of the model."""
        return str(self.result["conditions"].get("model"))


def read_all(paths: Iterable[Path]) -> list[SavedResult]:
    """The results in files, and in folders and their subfolders, each file once.

    What is of no named set has the name of other results on the same data, of a set if there is
    one.

    Raises:
        DataError: a path has none.
    """
    read = list(itertools.chain.from_iterable(map(_read, paths)))
    names: dict[tuple[str, str], Key] = {}
    for _, result, _ in sorted(read, key=lambda each: not each[1].get("set")):
        names.setdefault(_data(result), _own_key(result))
    found: dict[tuple[Path, Key], SavedResult] = {}
    for path, result, folder in read:
        own = _own_key(result)
        key = own if result.get("set") else names[_data(result)]
        found.setdefault((path.resolve(), own), SavedResult(path, result, folder, key))
    return list(found.values())


def _own_key(result: Result) -> Key:
    return str(result["task"]), subject_and_split(result) or "–"


def _data(result: Result) -> tuple[str, str]:
    """The task and the content of its data; where that is not known, the name."""
    task, name = _own_key(result)
    return task, str(result["conditions"].get("data", name))


def _read(asked: Path) -> list[tuple[Path, Result, Path]]:
    """The results in a file or folder, each with its file and folder."""
    if asked.name == "suite.json":
        asked = asked.parent
    folder = asked if asked.is_dir() else asked.parent
    if not asked.exists():
        raise DataError(f"there is no {asked}", MADE_BY)
    paths = sorted(asked.rglob("*.json")) if asked.is_dir() else [asked]
    found = [(path, each, folder) for path in paths for each in _results(path, named=path == asked)]
    if not found:
        raise DataError(f"{asked} has no results", MADE_BY)
    return found


def _results(path: Path, *, named: bool) -> list[Result]:
    """The results in a file; files that nobody named may be of any kind."""
    try:
        content = read_json(path)
    except LateenError as error:
        if named:
            raise DataError(error.message, MADE_BY) from error
        return []
    if not isinstance(content, dict):
        return []
    if _is_result(content):
        return [content]
    # What `lateen run` writes: a result for each task, and the recipe.
    recipe = content.get("recipe")
    if not isinstance(recipe, dict):
        return []
    root = Path(str(recipe.get("data", {}).get("root")))
    classes = recipe.get("evaluate", {}).get("classification")
    sources = {"retrieval": root, "classification": root / str(classes)}
    return [
        {"options": {"data": str(source)}, **part}
        for name, source in sources.items()
        if isinstance(part := content.get(name), dict) and _is_result(part)
    ]


def _is_result(content: Result) -> bool:
    return content.get("task") in RESULT_KINDS and isinstance(content.get("conditions"), dict)


def by_model(results: Sequence[SavedResult]) -> list[list[SavedResult]]:
    """Results of one model below one place, in order; where they overlap, by folder or by file."""
    columns = _groups(results, lambda each: (each.folder.resolve(), each.model))
    for finer in (lambda each: each.path.resolve().parent, lambda each: each.path.resolve()):
        parts = [[c] if _no_overlap(c) else _groups(c, finer) for c in columns]
        columns = [column for part in parts for column in part]
    return columns


def averaged_over_seeds(
    columns: Sequence[list[SavedResult]],
) -> list[list[list[SavedResult]]]:
    """Columns whose models were trained alike but for the seed together, in the order of the first.

    A seed that is there twice, and models that do not say how they were trained, stay alone.
    """
    together: dict[Hashable, list[list[SavedResult]]] = {}
    for index, column in enumerate(columns):
        trained = {_trained(each) for each in column}
        (without_seed, seed), *others = trained
        alone = others or without_seed is None
        group = together.setdefault(index if alone else without_seed, [])
        if any(_trained(each[0])[1] == seed for each in group):
            together[index] = [column]
        else:
            group.append(column)
    return list(together.values())


def _trained(saved: SavedResult) -> tuple[str | None, int | None]:
    """How the model was trained but for the seed, as a key, and the seed."""
    conditions = saved.result["conditions"]
    return conditions.get("trained_alike"), conditions.get("train_seed")


def _groups(
    results: Iterable[SavedResult], key: Callable[[SavedResult], Hashable]
) -> list[list[SavedResult]]:
    groups: dict[Hashable, list[SavedResult]] = {}
    for each in results:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def _no_overlap(column: Sequence[SavedResult]) -> bool:
    return len({each.key for each in column}) == len(column)


def folder_labels(columns: Sequence[Sequence[SavedResult]]) -> list[str]:
    """The folder's name, with as many of those above it, or of the file, as tell them apart."""
    folders = [_common(column) for column in columns]
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    if len(set(names)) == len(names):
        return names
    files = [column[0].path.stem for column in columns]
    return files if len(set(files)) == len(files) else [
        f"{name}/{file}" for name, file in zip(names, files, strict=True)
    ]  # fmt: skip


def _common(column: Sequence[SavedResult]) -> Path:
    """The folder that all of the files are in or below."""
    return Path(os.path.commonpath([each.path.resolve().parent for each in column]))
