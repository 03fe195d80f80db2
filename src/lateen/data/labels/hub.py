"""Labelled images of the hub: rows with an image and a label, or CLIP_benchmark's shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lateen.data.captions import CaptionDataset
from lateen.data.hub import HubImages, HubRows, load_splits, unreachable
from lateen.data.tables import find_image_column
from lateen.errors import DataError, choices

Choose = Callable[[Sequence[str]], str]

_LABEL_NAMES = ("label", "labels", "fine_label", "cls", "class", "target", "variant")


class LabelledRows(CaptionDataset):
    """Rows of a ``datasets.Dataset`` with an image and a label; the id is the row's number.

    Attributes:
        labels: by id; rows without a label (``None``, or −1 as the hub has it) have none.
        classes: the names of a ``ClassLabel``, or the texts that occur; ``None`` for bare numbers.
        split: which part this is, if there are several.
        splits: all parts.
        unlabelled: how many rows have no label.
    """

    def __init__(
        self, name: str, content: Any, column: str | None, split: str | None,
        splits: tuple[str, ...],
    ) -> None:  # fmt: skip
        rows = HubRows(name, content)
        super().__init__(name, (), HubImages(rows, _image_column(rows)), merge=False)
        self.split, self.splits = split, splits
        for index in range(len(rows)):
            self.add(str(index), index, {}, rows.source(index))
        label = _label_column(rows, column)
        values = [row.cells[label] for row in rows.read([label])]
        self.classes = _classes(rows.features[label], values, name)
        words = {str(index): _label(value, self.classes) for index, value in enumerate(values)}
        self.labels = {index: word for index, word in words.items() if word is not None}
        self.unlabelled = len(values) - len(self.labels)


def open_labelled_rows(source: str, column: str | None, choose: Choose) -> LabelledRows:
    """A folder saved by ``datasets``, Parquet files, or a hub name.

    Args:
        source: which.
        column: of the labels; found by its type or name if not given.
        choose: one of several splits.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline), or has no images or labels.
    """
    import datasets

    content = load_splits(source)
    if not isinstance(content, datasets.DatasetDict):
        return LabelledRows(source, content, column, None, ())
    parts = tuple(content)
    if source.endswith(".parquet"):  # the only part is called train, whatever it is
        return LabelledRows(source, content[parts[0]], column, None, ())
    split = choose(parts)
    return LabelledRows(source, content[split], column, split, parts)


def fetch_shards(
    name: str, marker: str, choose: Choose
) -> tuple[Path, str, tuple[str, ...]] | None:
    """One split of a hub dataset in CLIP_benchmark's form, from the cache where it is whole.

    Args:
        name: of the dataset.
        marker: the file by which the form is known.
        choose: one of several splits.

    Returns:
        Its folder, the split, and all splits; ``None`` where the dataset is not of this form, or
        cannot be reached.

    Raises:
        DataError: its shards cannot be fetched.
    """
    folder = _snapshot(name, ["*.txt", "*/*.txt"], lambda found: _is_benchmark(found, marker))
    if isinstance(folder, Exception):
        return None
    parts = tuple(sorted(file.parent.name for file in folder.glob("*/nshards.txt")))
    split = choose(parts)
    whole = _snapshot(name, [f"{split}/*"], lambda found: _has_all_shards(found / split))
    if isinstance(whole, Exception):
        raise unreachable(name, whole) from whole
    return folder, split, parts


def _snapshot(name: str, files: list[str], is_whole: Callable[[Path], bool]) -> Path | Exception:
    from huggingface_hub import snapshot_download

    problem: Exception = OSError("it is not in the cache")
    for cached in (True, False):
        try:
            folder = Path(snapshot_download(
                name, repo_type="dataset", allow_patterns=files, local_files_only=cached
            ))  # fmt: skip
        except Exception as error:  # noqa: BLE001  the hub client raises many kinds; all mean "not here"
            problem = error
            continue
        # The cache gives out what an interrupted or partial download left there, and so does the
        # client where there is no network.
        if is_whole(folder):
            return folder
        problem = OSError("only a part of it is there")
    return problem


def _is_benchmark(folder: Path, marker: str) -> bool:
    return (folder / marker).is_file() and any(folder.glob("*/nshards.txt"))


def _has_all_shards(folder: Path) -> bool:
    try:
        count = int((folder / "nshards.txt").read_text())
    except (OSError, ValueError):
        return False
    return all((folder / f"{index}.tar").is_file() for index in range(count))


def _image_column(rows: HubRows) -> str:
    images = [each for each, kind in rows.features.items() if _holds_images(kind)]
    if not images:
        raise DataError(
            f"{rows.name} has no column of images; its columns are {', '.join(rows.columns)}",
            "Give a dataset with a column of the type Image, or of encoded images (bytes).",
        )
    return find_image_column(images, None) or images[0]


def _holds_images(kind: Any) -> bool:
    """Whether a column is of images, or of their bytes as other programs write Parquet."""
    import datasets

    if isinstance(kind, dict):
        kind = kind.get("bytes")
    encoded = isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")
    return encoded or isinstance(kind, datasets.Image)


def _label_column(rows: HubRows, given: str | None) -> str:
    import datasets

    if given is not None:
        if given not in rows.columns:
            raise DataError(f"{rows.name} has no column {given!r}", choices(given, rows.columns))
        return given
    named = next((each for each in _LABEL_NAMES if each in rows.columns), None)
    of_type = [c for c, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
    if named is None and len(of_type) != 1:
        raise DataError(
            f"{rows.name} has {'several columns' if of_type else 'no column'} of labels; its "
            f"columns are {', '.join(rows.columns)}",
            "Name the one with --column.",
        )
    return named or of_type[0]


def _classes(kind: Any, values: Sequence[Any], name: str) -> tuple[str, ...] | None:
    import datasets

    if isinstance(kind, datasets.ClassLabel):
        names = tuple(str(each) for each in kind.names)
        highest = max((value for value in values if value is not None), default=-1)
        if highest >= len(names):
            raise DataError(
                f"{name} has a label {highest}, and only {len(names)} class names",
                "Correct the dataset.",
            )
        return names
    if all(isinstance(value, int) or value is None for value in values):  # also True and False
        return None
    if all(isinstance(value, str) or value is None for value in values):
        return tuple(sorted({value for value in values if value}))
    raise DataError(
        f"the labels of {name} are neither numbers nor texts, one for each image",
        "Name another column with --column.",
    )


def _label(value: Any, classes: tuple[str, ...] | None) -> str | None:
    if value is None or value == "" or (isinstance(value, int) and value < 0):
        return None
    if isinstance(value, int):
        return classes[value] if classes is not None else str(int(value))
    return str(value)
