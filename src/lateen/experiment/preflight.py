"""Where a recipe's data and encoders are, and whether they are there: looked at before torch is
loaded and before anything is encoded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lateen.data import Dataset, Sample, decode_image, open_dataset
from lateen.data.beside import CaptionsBeside
from lateen.data.captions import split_position
from lateen.data.labels import open_labelled
from lateen.data.open import check_source
from lateen.data.samples import AbsentImages, no_captions
from lateen.encoders.base import SIDES
from lateen.encoders.config import EncoderConfig, TextSection, VisionSection
from lateen.encoders.resolve import files_are_here, find_python, resolve
from lateen.errors import DataError, Faults, ImageError, UsageError
from lateen.experiment.recipe import DataSection, Recipe
from lateen.files import check_writable, refuse_foreign
from lateen.objects import is_remote, to_path
from lateen.training.tracking import check_tracker

RESULTS = "results.json"
STORE_MARKS = ("stores/*/manifest.json", "stores/*/plan.json")
"""What only a command that encodes into ``stores`` leaves, for
:func:`lateen.files.refuse_foreign`."""

# What a killed run has, and the recipe that a user may have put there.
_BESIDE = ("model", "train", "*.yaml", "*.yml")
_MANIFEST = "manifest.json"  # of a store; what else knows its name loads torch
SPLITS = ("train", "validation", "test")
UNPAIRED = {"images": "unpaired-vision", "texts": "unpaired-text"}
"""What the datasets of ``train.unpaired`` are called, and their stores after them."""


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe of which everything was opened.

    Attributes:
        plan: the recipe with absolute paths.
        datasets: its splits by name. Whoever encodes one takes it out: they are not needed, and not
            held, while heads are trained.
    """

    plan: Recipe
    datasets: dict[str, Dataset]


def check_run(recipe: Recipe | str | Path | Mapping[str, Any], out: str | Path) -> CheckedRecipe:
    """Open everything that a run will need, and see that its folder can be written.

    Args:
        recipe: a Recipe, the path of a YAML file, or its values.
        out: the run's folder.

    Raises:
        LateenError: what is wrong, all of it at once.
    """
    plan = with_absolute_paths(Recipe.of(recipe))
    faults, folder = Faults(), Path(out)
    with faults.note():
        refuse_foreign(folder, "the folder of a run", (RESULTS, *STORE_MARKS), _BESIDE)
        check_writable(folder)
    datasets = open_splits(plan.data, faults)
    for side in UNPAIRED:
        with faults.note():
            found = open_unpaired(plan, side)
            if found is not None and not isinstance(found, Path):
                datasets[UNPAIRED[side]] = found
    with faults.note():
        _check_classes(plan, folder)
    with faults.note():
        check_tracker(plan.train.track)
    check_encoders(encoder_sections(plan), faults)
    return CheckedRecipe(plan, datasets)


def open_splits(data: DataSection, faults: Faults) -> dict[str, Dataset]:
    """Every split that a recipe names, with its columns looked at.

    Args:
        data: the recipe's section.
        faults: gets what is wrong.
    """
    datasets: dict[str, Dataset] = {}
    for name in SPLITS:
        source = getattr(data, name)
        if source is None:
            continue
        with faults.note():
            dataset = open_split(data, source, name)
            split_columns(data, dataset)
            if name == "train":
                _check_positions(data, dataset)
            datasets[name] = dataset
    return datasets


def check_sources(data: DataSection, faults: Faults, names: Collection[str] = SPLITS) -> None:
    """See that the files of splits are there, without reading them.

    Args:
        data: the recipe's section.
        faults: gets what is wrong.
        names: of the splits.
    """
    for name in SPLITS:
        source = getattr(data, name)
        if name in names and source is not None:
            with faults.note():
                check_source(_existing_root(data, source)[0])


def encoder_sections(plan: Recipe) -> Iterator[EncoderConfig]:
    """Those of a recipe that name an encoder, fused ones too."""
    for side in (plan.vision, plan.text):
        yield side
        yield from chain.from_iterable(side.further.values())


def check_encoders(sections: Iterable[EncoderConfig], faults: Faults) -> None:
    """See that the files of all encoders are there; those of the hub are fetched, if nothing else
    is wrong.

    Args:
        sections: those that name one.
        faults: what is wrong so far; is raised here.

    Raises:
        LateenError: anything is wrong.
    """
    absent: list[tuple[str, str | None]] = []
    for name, revision, untrained, python in dict.fromkeys(
        (each.encoder, each.revision, each.untrained, each.python) for each in sections
    ):
        with faults.note():
            if python is not None:
                find_python(python)
        with faults.note():
            if not files_are_here(name, revision, weights=not untrained):
                absent.append((name, revision))
    faults.raise_all()
    for name, revision in dict.fromkeys(absent):
        with faults.note():
            resolve(name, revision)
    faults.raise_all()


def open_unpaired(plan: Recipe, side: str) -> Path | Dataset | None:
    """What a side of ``train.unpaired`` names: a feature store's folder, or a dataset to encode;
    None if that side is not given.

    Args:
        plan: the recipe.
        side: ``images`` or ``texts``.

    Raises:
        DataError: there is neither, or no captions where texts are wanted.
    """
    source = plan.train.unpaired.sources.get(side) if plan.train.unpaired else None
    if source is None:
        return None
    where, split = _existing_root(plan.data, source)
    if isinstance(where, Path) and (where / _MANIFEST).is_file():
        return where
    texts = side == "texts"
    dataset = open_dataset(
        where, images=AbsentImages() if texts else None, image_column=plan.data.image_column,
        captions=caption_columns(plan.data) if texts else (), split=split,
    )  # fmt: skip
    if texts and not dataset.columns:
        raise DataError(no_captions(dataset), "Name a caption file in train.unpaired.texts.")
    return dataset


def _check_positions(data: DataSection, dataset: Dataset) -> None:
    """See that every image to train on has the captions that ``data.captions`` names by position.

    Raises:
        DataError: one that can be decoded has not.
    """
    wanted = [(c, p) for c, p in map(split_position, data.captions) if p is not None]
    # Those held out may have fewer, and are less than half.
    spared = 0 if data.validation is not None else len(dataset) // 2
    for sample in dataset if wanted else ():
        # Without captions in some column, or without a readable image, it leaves all of them.
        if not isinstance(sample, Sample) or not all(sample.captions.get(c) for c, _ in wanted):
            continue
        column, position = max(wanted, key=lambda each: each[1] - len(sample.captions[each[0]]))
        count = len(sample.captions[column])
        if count <= position and _is_readable(sample):
            spared -= 1
            if spared < 0:
                raise DataError(
                    f"{column}#{position} needs {position + 1} captions of every image, and "
                    f"{sample.id!r} has {count} (positions count from 0)",
                    "Choose a lower position, or leave those images out of the data.",
                )


def _is_readable(sample: Sample) -> bool:
    if sample.image is None:
        return True
    try:
        decode_image(sample.image)
    except ImageError:
        return False
    return True


def _check_classes(plan: Recipe, out: Path) -> None:
    """See that zero-shot classification has images and names of classes.

    Raises:
        DataError: it has not.
        UsageError: the run would write into a class folder.
    """
    if plan.evaluate.classification is None:
        return
    folder = plan.data.root / plan.evaluate.classification
    if out.resolve().is_relative_to(folder.resolve()) and folder.is_dir():
        raise UsageError(
            f"--out {out} lies in the class folder {folder}, and would be taken for a class",
            "Give another --out.",
        )
    if not open_labelled(folder).named_by:
        raise DataError(
            f"{folder} numbers its classes and does not name them",
            "Name the folders in words, or leave evaluate.classification out.",
        )


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The same recipe, to be run from anywhere; encoders are sought below ``data.root``, too."""
    root = to_path(recipe.data.root).resolve()
    sections: dict[str, Any] = {"data": recipe.data.model_copy(update={"root": root})}
    for side in SIDES:
        section: VisionSection | TextSection = getattr(recipe, side)
        parts = {
            key: tuple(part.placed(root) for part in named)
            for key, named in section.further.items()
        }
        sections[side] = section.placed(root).model_copy(update=parts)
    return recipe.model_copy(update=sections)


def caption_columns(data: DataSection) -> tuple[str, ...]:
    """The columns that ``data.captions`` takes captions from, each once."""
    return tuple(dict.fromkeys(split_position(name)[0] for name in data.captions))


def split_columns(data: DataSection, dataset: Dataset) -> tuple[str, ...]:
    """The caption columns of a split that are used.

    Those of ``data.captions_beside`` are of the training split alone.

    Raises:
        DataError: it has none.
    """
    columns = caption_columns(data) or tuple(dataset.columns)
    if data.captions_beside:
        columns = tuple(column for column in columns if column in dataset.columns)
    if not columns:
        raise DataError(
            no_captions(dataset), "Name a caption file in data.train (--captions FILE)."
        )
    return columns


def split_dataset(data: DataSection, name: str) -> Dataset:
    """The dataset that a split's samples are in; those of the holdout are in the training split."""
    name = "train" if name == "holdout" else name
    return open_split(data, getattr(data, name), name)


def located(root: Path, source: str) -> tuple[Path | str, str | None]:
    """What a source of a recipe names, and its split: ``file.json#val`` has one inside it.

    It is what lies below the root, a path; else what looks like one is a datasets name, as text.
    """
    name, mark, split = source.rpartition("#")
    if is_remote(source):
        return to_path(name if mark else source), split if mark else None
    root = to_path(root)
    if not mark or (root / source).exists():  # a path may have a # in it
        name, split = source, ""
    path = root / name
    hub = not path.exists() and name.count("/") == 1 and not Path(name).suffix
    return name if hub else path, split or None


def _existing_root(data: DataSection, source: str) -> tuple[Path | str, str | None]:
    """As :func:`located`.

    Raises:
        DataError: the source is to be found below the root, which is not there.
    """
    where, split = located(data.root, source)
    root = to_path(data.root)
    if isinstance(where, Path) and not where.exists() and not root.is_dir():
        raise DataError(f"there is no folder {data.root}", "Correct data.root.")
    return where, split


def open_split(data: DataSection, source: str, name: str) -> Dataset:
    """A split's dataset, where :func:`located` finds it; of a datasets name the split is by
    default ``name``."""
    where, split = _existing_root(data, source)
    others = [open_dataset(located(data.root, each)[0]) for each in data.captions_beside]
    beside = {column for other in others for column in other.columns}
    dataset = open_dataset(
        where,
        images=to_path(data.root) / data.images if data.images else None,
        image_column=data.image_column,
        captions=[column for column in caption_columns(data) if column not in beside],
        split=split or (name if isinstance(where, str) else None),
    )  # fmt: skip
    return CaptionsBeside(dataset, others) if others and name == "train" else dataset
