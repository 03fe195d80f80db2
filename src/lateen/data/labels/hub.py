"""Labelled images of the hub: rows with an image and a label, or CLIP_benchmark's shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lateen.data.captions import GatheredDataset
from lateen.data.fingerprint import file_hashes
from lateen.data.hub import RowImage, is_saved_dataset, outside_files, undecoded
from lateen.data.samples import ImageSource
from lateen.data.tables import find_image_column
from lateen.errors import DataError, choices

Choose = Callable[[Sequence[str]], str]


_LABEL_NAMES = ("label", "labels", "fine_label", "cls", "class", "target", "variant")


_ROWS = 4096


class LabelledRows(GatheredDataset):
    """Rows of a ``datasets.Dataset`` with an image and a label; the id is the row's number.

    Attributes:
        labels: by id; rows without a label (``None``, or −1 as the hub has it) have none.
        classes: the names of a ``ClassLabel``, or the texts that occur; ``None`` for bare numbers.
        split: which part this is, if there are several.
        splits: all parts.
        unlabelled: how many rows have no label.
    """

    def __init__(
        self, name: str, rows: Any, column: str | None, split: str | None, splits: tuple[str, ...]
    ) -> None:
        super().__init__(name, (), merge=False)
        self.split, self.splits = split, splits
        self._image = _image_column(rows, name)
        self._rows = undecoded(rows, self._image)
        for index in range(len(rows)):
            self._add(str(index), index, {}, f"{name}[{index}]")
        label = _label_column(rows, column, name)
        values = [value for batch in rows.select_columns([label]).iter(_ROWS)
                  for value in batch[label]]  # fmt: skip
        self.classes = _classes(rows.features[label], values, name)
        found = {str(index): _label(value, self.classes) for index, value in enumerate(values)}
        self.labels = {index: text for index, text in found.items() if text is not None}
        self.unlabelled = len(values) - len(self.labels)

    def _images(self, refs: Iterable[int]) -> Iterator[ImageSource]:
        return (RowImage(f"{self.name}[{ref}]", self._rows, self._image, ref) for ref in refs)

    def _contents(self) -> Iterable[str]:
        files = [file["filename"] for file in self._rows.cache_files]
        return file_hashes([*files, *outside_files(self._rows, self._image)])


def open_rows(source: str, column: str | None, choose: Choose) -> LabelledRows:
    """A folder saved by ``datasets``, Parquet files, or a hub name.

    Args:
        source: which.
        column: of the labels; found by its type or name if not given.
        choose: one of several splits.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline), or has no images or labels.
    """
    import datasets

    found = _load(source)
    if not isinstance(found, datasets.DatasetDict):
        return LabelledRows(source, found, column, None, ())
    parts = tuple(found)
    if source.endswith(".parquet"):  # the only part is called train, whatever it is
        return LabelledRows(source, found[parts[0]], column, None, ())
    split = choose(parts)
    return LabelledRows(source, found[split], column, split, parts)


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
        raise _unreachable(name, whole) from whole
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


def _load(source: str) -> Any:
    import datasets

    path = Path(source)
    try:
        if path.is_dir() and is_saved_dataset(path):
            return datasets.load_from_disk(source, keep_in_memory=False)
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=source, keep_in_memory=False)
        return datasets.load_dataset(source, keep_in_memory=False)
    except (
        OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError
    ) as error:  # fmt: skip
        raise _unreachable(source, error) from error


def _unreachable(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    if Path(name).exists():
        reason = " ".join(str(error.__cause__ or error).split())  # the outer one says nothing
        return DataError(f"{name} cannot be loaded ({reason})", "Write or download it again.")
    return DataError(
        f"the dataset {name} cannot be loaded ({reason[:300]})",
        f"Check its name; if it is gated, accept its terms at https://huggingface.co/datasets/{name}"
        " and run `hf auth login`; without a network, give a folder with the data.",
    )


def _image_column(rows: Any, name: str) -> str:
    images = [each for each, kind in rows.features.items() if _holds_images(kind)]
    if not images:
        raise DataError(
            f"{name} has no column of images; its columns are {', '.join(rows.column_names)}",
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


def _label_column(rows: Any, given: str | None, name: str) -> str:
    import datasets

    columns = list(rows.column_names)
    if given is not None:
        if given not in columns:
            raise DataError(f"{name} has no column {given!r}", choices(given, columns))
        return given
    named = next((each for each in _LABEL_NAMES if each in columns), None)
    of_type = [c for c, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
    if named is None and len(of_type) != 1:
        raise DataError(
            f"{name} has {'several columns' if of_type else 'no column'} of labels; its columns "
            f"are {', '.join(columns)}",
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
