"""A recipe for what lies in a folder: which files are pairs, splits and classes, and what to use.

Everything is opened by the readers that a run uses; what they say on the way is handed on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lateen.config import RECIPE_FILE
from lateen.data import Dataset, Sample, open_dataset
from lateen.data.folder import ImageFolder, visible_folders
from lateen.data.hub import is_saved_dataset
from lateen.data.images import IMAGE_SUFFIXES
from lateen.data.labels import open_labelled
from lateen.data.rows import TABLE_SUFFIXES
from lateen.data.samples import PEEK, AbsentImages, find_image_files, split_word
from lateen.encoders.config import TextSection, VisionSection
from lateen.encoders.openai_server import is_server
from lateen.encoders.resolve import files_are_here
from lateen.encoders.specs import family_of, model_type_of
from lateen.errors import DataError, LateenError, UsageError
from lateen.experiment.preflight import SPLITS
from lateen.experiment.recipe import Recipe
from lateen.files import read_json, write_text
from lateen.progress import log
from lateen.training.auto import MANY
from lateen.training.config import AUTO

_DEFAULTS = {"vision": VisionSection(), "text": TextSection()}
_NUMBERED = re.compile(r"(.*?)(\d+)\.tar")
_PARTS = ("train", "val", "validation", "test")  # of a JSON file with splits in it
_MOST_TOLD = 5
_MOST_FILES = 50  # in one folder that may be tables
_TOP = """\
# What `lateen init` found in this folder, which is `data.root`. All keys: `lateen keys`.
#   lateen run {folder}
"""


@dataclass
class Proposal:
    """A recipe, and what it is made of.

    Attributes:
        values: of the recipe.
        took: what was taken, in sentences.
        guessed: what may be otherwise.
        left_out: what is not used, and why.
    """

    values: dict[str, Any] = field(default_factory=dict)
    took: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Source:
    """A file or folder of images with captions.

    Attributes:
        name: as a recipe names it, relative to the root.
        split: the one that its name is of; empty for any other name.
        images: the folder of its images, relative to the root, if it must be named.
        columns: its caption columns.
        count: of images that can be used, as far as their files are there.
    """

    name: str
    split: str
    images: str | None
    columns: tuple[str, ...]
    count: int


def propose(folder: str | Path, *, vision: str | None = None, text: str | None = None) -> Proposal:
    """A recipe for the images and captions in a folder.

    Args:
        folder: with a table, JSON file, shards or a saved dataset, and images.
        vision: the vision encoder; one that lies in the folder, else lateen's own if not given.
        text: the text encoder, likewise.

    Raises:
        DataError: there is no such folder, or nothing in it to train on, and what is missing.
        EncoderError: an encoder that is given is not there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root}", "Give the folder of your images and captions."
        )
    proposal = Proposal()
    sources = _sources(root, proposal)
    if not sources:
        raise _nothing_to_train_on(root, proposal)
    splits = _assign(sources, proposal)
    train = splits["train"].count
    proposal.values = {"preset": AUTO if train < MANY else "sail"}
    proposal.values["data"] = _data(splits, proposal)
    _choose_encoders(root, {"vision": vision, "text": text}, proposal)
    proposal.guessed.append(f"preset {proposal.values['preset']}, for {train:,} images")
    _find_classes(root, splits, proposal)
    _tell_the_rest(root, splits, proposal)
    Recipe.build(proposal.values)
    return proposal


def write_proposal(proposal: Proposal, folder: Path, *, overwrite: bool = False) -> Path:
    """Write a proposed recipe into its folder.

    Args:
        proposal: the recipe.
        folder: that it is for.
        overwrite: replace one that is there.

    Raises:
        UsageError: there is one.
    """
    path = folder / RECIPE_FILE
    refuse_recipe(folder, overwrite=overwrite)
    text = yaml.safe_dump(proposal.values, sort_keys=False, allow_unicode=True)
    write_text(path, _TOP.format(folder=shlex.quote(folder.resolve().name)) + text)
    return path


def refuse_recipe(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write over a folder's recipe, unless that is wanted.

    Raises:
        UsageError: there is one.
    """
    if (folder / RECIPE_FILE).exists() and not overwrite:
        raise UsageError(
            f"{folder / RECIPE_FILE} exists", "Edit it, or write another over it with --force."
        )


# -- images with captions -------------------------------------------------------------------------


def _sources(root: Path, proposal: Proposal) -> list[_Source]:
    """Everything in the folder and its subfolders that has images with captions."""
    sources = []
    for name, path in _candidates(root):
        with _said(proposal.guessed):
            try:
                source = _opened(root, name, path)
            except LateenError as error:
                proposal.left_out.append(f"{name}: {error.message}")
                continue
        if isinstance(source, _Source):
            sources.append(source)
        else:
            proposal.left_out.append(f"{name}: {source}")
    return sources


def _candidates(root: Path) -> Iterator[tuple[str, Path]]:
    """What may have captions: its name in a recipe, and its path."""
    for folder in (root, *(root / name for name in visible_folders(root))):
        inside = folder.relative_to(root)
        if is_saved_dataset(folder):
            yield from ((f"{inside.as_posix()}{part}", folder) for part in _saved_parts(folder))
            if folder == root:
                return
            continue
        yield from _shards(folder, inside)
        files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        if sum(path.suffix.lower() in (*TABLE_SUFFIXES, ".json") for path in files) > _MOST_FILES:
            continue  # one for each image, most likely
        for path in files:
            if not path.is_file():
                continue
            name = (inside / path.name).as_posix()
            if path.suffix.lower() in TABLE_SUFFIXES:
                yield name, path
            elif path.suffix.lower() == ".json":
                yield from ((f"{name}{part}", path) for part in _json_parts(path))


def _saved_parts(folder: Path) -> list[str]:
    file = folder / "dataset_dict.json"
    names = read_json(file).get("splits", []) if file.is_file() else []
    return [f"#{name}" for name in names] or [""]


def _json_parts(path: Path) -> list[str]:
    """``#train`` and so on of a JSON file that has splits in it (Karpathy's)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = content["images"]
        splits = {str(image["split"]) for image in images}
    except (ValueError, KeyError, TypeError):
        return [""]
    return [f"#{part}" for part in _PARTS if part in splits] or [""]


def _shards(folder: Path, inside: Path) -> Iterator[tuple[str, Path]]:
    """WebDataset shards: the folder, or a pattern for each split that their names tell."""
    shards = sorted(path.name for path in folder.glob("*.tar") if not path.name.startswith("."))
    series: dict[str, list[str]] = {}
    for name in shards:
        match = _NUMBERED.fullmatch(name)
        series.setdefault(match[1] if match else name, []).append(name)
    if not any(split_word(prefix) for prefix in series):
        if shards:
            yield inside.as_posix(), folder
        return
    for prefix, names in series.items():
        numbers = [name.removeprefix(prefix).removesuffix(".tar") for name in names]
        pattern = f"{prefix}{{{numbers[0]}..{numbers[-1]}}}.tar" if len(names) > 1 else names[0]
        yield (inside / pattern).as_posix(), folder / pattern


def _opened(root: Path, name: str, path: Path) -> _Source | str:
    """The source, or why it is none."""
    mark = name.rpartition("#")[2] if "#" in name else None
    whole = _open(path, AbsentImages(), mark)
    if not whole.columns:
        return "it has no captions"
    images = _images_of(root, path, whole) if path.is_file() else None
    dataset = _open(path, root / images if images else None, mark)
    count = sum(isinstance(item, Sample) and item.image is not None for item in dataset)
    if not count:
        return "it has captions and no column of images"
    word = mark or (path.name if path.is_file() or path.suffix == ".tar" else path.stem)
    split = _split_of(word) or (_split_of(path.parent.name) if path.parent != root else "")
    return _Source(name, split, images, dataset.columns, count)


def _open(path: Path, images: Path | AbsentImages | None, split: str | None) -> Dataset:
    return open_dataset(path, images=images, split=split)


def _split_of(name: str) -> str:
    stem = re.sub(r"\d+", " ", name.rpartition("/")[2].partition(".")[0])
    words = re.split(r"[\W_]+", stem.lower())
    return split_word(stem) or ("validation" if "dev" in words else "")


def _images_of(root: Path, path: Path, dataset: Dataset) -> str | None:
    """The folder that a file's images are in, where its reader would not look by itself."""
    names = [item.id for item in dataset if isinstance(item, Sample)][:PEEK]
    usual = [path.parent, path.parent / "images"]
    others = [root, *(root / name for name in visible_folders(root))]
    others += [root / a / b for a in visible_folders(root) for b in visible_folders(root / a)[:9]]
    folder = find_image_files(None, [*usual, *others], names).folder
    usable = any(find_image_files(folder, [], []).find(name) for name in names)
    return folder.relative_to(root).as_posix() if usable and folder not in usual else None


def _assign(sources: list[_Source], proposal: Proposal) -> dict[str, _Source]:
    """The source of each split; the largest, where several may be it."""
    by_size = sorted(sources, key=lambda source: -source.count)
    splits: dict[str, _Source] = {}
    for source in by_size:
        if source.split and source.split not in splits:
            splits[source.split] = source
    if "train" not in splits:
        unnamed = [source for source in by_size if not source.split]
        chosen = (unnamed or by_size)[0]
        splits = {"train": chosen} | {k: v for k, v in splits.items() if v is not chosen}
        if len(sources) > 1:
            proposal.guessed.append(f"{chosen.name} is what to train on")
    images = {source.images for source in splits.values() if source.images}
    for name, source in list(splits.items()):
        if name != "train" and source.images != splits["train"].images and len(images) > 0:
            del splits[name]  # data.images is one folder for all
            proposal.left_out.append(f"{source.name}: its images are in another folder")
    for source in sources:
        if source not in splits.values() and not any(
            line.startswith(f"{source.name}:") for line in proposal.left_out
        ):
            proposal.left_out.append(
                f"{source.name}: {source.count:,} images with captions; a split has one source"
            )
    return {name: splits[name] for name in SPLITS if name in splits}


def _data(splits: Mapping[str, _Source], proposal: Proposal) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if images := splits["train"].images:
        data["images"] = images
    for name, source in splits.items():
        data[name] = source.name
        columns = ", ".join(source.columns)
        proposal.took.append(
            f"{name}: {source.name}, {source.count:,} images with captions ({columns})"
        )
    if images:
        proposal.took.append(f"images: {images}/")
    if "validation" not in splits:
        proposal.guessed.append("no validation split: some training images are held out as one")
    return data


# -- encoders, classes, the rest ------------------------------------------------------------------


def _choose_encoders(root: Path, given: Mapping[str, str | None], proposal: Proposal) -> None:
    inside = _encoders_inside(root)
    for side, section in _DEFAULTS.items():
        modality = "image" if side == "vision" else "text"
        asked = given[side]
        if asked and (folder := Path(asked).expanduser().resolve()).exists():
            # The recipe is run from anywhere.
            inner = folder.is_relative_to(root.resolve())
            asked = str(folder.relative_to(root.resolve()) if inner else folder)
        name = asked or inside.get(modality) or section.encoder
        encoder = section.model_copy(update={"encoder": name}).found_below(root)
        here = files_are_here(encoder)
        proposal.values[side] = {"encoder": name}
        known = "on this machine" if here else "not on this machine: fetched from the hub when run"
        known = "behind a server" if is_server(encoder) else known
        if given[side]:
            proposal.took.append(f"{side} encoder: {name}, {known}")
        else:
            proposal.guessed.append(
                f"{side} encoder {name}, {known}; another (folder or hub id): --{side}.encoder"
            )


def _encoders_inside(root: Path) -> dict[str, str]:
    """The first encoder of each modality that lies in a subfolder, as its folder's name."""
    inside: dict[str, str] = {}
    for config in sorted([*root.glob("*/config.json"), *root.glob("*/*/config.json")]):
        with contextlib.suppress(LateenError, AttributeError):
            modality = family_of(model_type_of(read_json(config))).modality
            if modality is not None and files_are_here(str(config.parent)):
                inside.setdefault(modality, config.parent.relative_to(root).as_posix())
    return inside


def _find_classes(root: Path, splits: Mapping[str, _Source], proposal: Proposal) -> None:
    """A class folder for zero-shot classification, beside the images with captions."""
    used = _used(splits)
    for name in visible_folders(root):
        if name in used or len(visible_folders(root / name)) < 2:
            continue
        with contextlib.suppress(LateenError), _said([]):
            labelled = open_labelled(root / name)
            if labelled.named_by and "evaluate" not in proposal.values:
                proposal.values["evaluate"] = {"classification": name}
                proposal.took.append(
                    f"classes: {name}/, {len(labelled.names)} of them, to be told apart without "
                    "training on them"
                )


def _used(splits: Mapping[str, _Source]) -> set[str]:
    """The names, right below the root, of what the splits are made of."""
    used = {RECIPE_FILE, "images"}
    for source in splits.values():
        used |= {source.name.partition("#")[0].partition("/")[0]}
        used |= {(source.images or "").partition("/")[0]}
    return used


def _tell_the_rest(root: Path, splits: Mapping[str, _Source], proposal: Proposal) -> None:
    used = _used(splits) | {str(proposal.values.get("evaluate", {}).get("classification"))}
    used |= {str(proposal.values[side]["encoder"]).partition("/")[0] for side in _DEFAULTS}
    used |= {line.partition(":")[0].partition("#")[0] for line in proposal.left_out}
    whole = {"."} & {source.name.partition("#")[0] for source in splits.values()}
    patterns = any("{" in source.name for source in splits.values())
    rest = [
        entry.name + ("/" if entry.is_dir() else "")
        for entry in sorted(root.iterdir())
        if entry.name not in used
        and not entry.name.startswith(".")
        and entry.suffix.lower() not in IMAGE_SUFFIXES
        and not (entry.suffix == ".tar" and (whole or patterns))
    ]
    if rest and not whole:
        more = f" and {len(rest) - _MOST_TOLD} more" if len(rest) > _MOST_TOLD else ""
        proposal.left_out.append(f"{', '.join(rest[:_MOST_TOLD])}{more}: not used")


def _nothing_to_train_on(root: Path, proposal: Proposal) -> DataError:
    """What the folder has instead of images with captions, and what to do."""
    remedy = (
        "Training needs captions: a table with the columns image and caption, COCO JSON, shards, "
        "or a saved dataset."
    )
    if proposal.left_out:
        reasons = "; ".join(proposal.left_out[:_MOST_TOLD])
        if "no column that is called like captions" in reasons:
            remedy = (
                "Call its columns image and caption; or say which they are: lateen run --captions "
                "FILE --data.image_column NAME --data.captions NAME."
            )
        return DataError(f"{root} has no images with captions ({reasons})", remedy)
    with _said([]), contextlib.suppress(LateenError):
        folder = ImageFolder(root)
        if len(folder.classes) > 1:
            return DataError(
                f"{root} has {len(folder):,} images in {len(folder.classes)} class folders, and no "
                "captions",
                f"{remedy} A model that is there can be judged on them: lateen evaluate "
                f"classification MODEL --images {root}.",
            )
        return DataError(f"{root} has {len(folder):,} images and no captions", remedy)
    return DataError(f"{root} has neither images nor captions", remedy)


@contextlib.contextmanager
def _said(lines: list[str]) -> Iterator[None]:
    """Take down what readers warn of, instead of showing it."""

    class _Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and (text := record.getMessage()) not in lines:
                lines.append(text)

    before, log.handlers = log.handlers, [_Listener()]
    try:
        yield
    finally:
        log.handlers = before
