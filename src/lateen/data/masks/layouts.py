"""Sets of images and masks, as they are published (METHODS §1.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lateen.data.labels.names import read_mask_classes
from lateen.data.masks.masks import IGNORED, Indices, MaskedImages, by_stem
from lateen.data.samples import FileImage, ImageSource, Skip
from lateen.data.text import read_utf8
from lateen.errors import DataError, UsageError, choices

# Categories of COCO that are in no picture: the pixel value is the category's number less one.
_COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_COCO_VALUES = 182
_TRAIN_IDS = "_labelTrainIds"


@dataclass(frozen=True)
class _ValidationPart:
    """The validation part of a set.

    Attributes:
        images: by id.
        masks: by id.
        relabel: indices in the masks to indices of the classes; ``None`` where they are these.
        skips: what has to be left out.
    """

    images: Mapping[str, ImageSource]
    masks: Mapping[str, ImageSource]
    relabel: Callable[[Indices], Indices] | None
    skips: list[Skip]


@dataclass(frozen=True)
class MaskLayout:
    """How a set is published.

    Attributes:
        name: of the set; ``<name>.txt`` beside this file has its classes.
        folders: names that its root may have below the folder that is given.
        needs: what lies in its root, in words.
        source: where to get it.
        find: its validation part in a root, ``None`` where that is not one.
    """

    name: str
    folders: tuple[str, ...]
    needs: str
    source: str
    find: Callable[[Path], _ValidationPart | None]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, as words."""
        return read_mask_classes(Path(__file__).with_name(f"{self.name}.txt"))

    def look(self, data: Path) -> _ValidationPart | None:
        """Its validation part in ``data`` or in a folder of it that has the set's name."""
        for root in (data, *(data / folder for folder in self.folders)):
            if (part := self.find(root)) is not None:
                return part
        return None


def open_masks(
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    data: str | Path | None = None,
    layout: str = "auto",
    classes: str | Path | None = None,
) -> MaskedImages:
    """Images with their masks: two folders of your own, or a published set.

    Args:
        images: a folder of images.
        masks: a folder with an index mask (PNG) of the same name for each.
        data: instead of both: the folder of a published set, of which the validation part is taken.
        layout: ``plain`` for two folders; a name in :data:`LAYOUTS`; ``auto`` finds out.
        classes: text file with one class name a line; published sets have theirs here.

    Raises:
        UsageError: options that do not go together, or no such layout.
        DataError: no such set there, class names that do not fit, or no image that has a mask.
    """
    if layout not in (known := ["auto", "plain", *LAYOUTS]):
        raise UsageError(f"there is no layout {layout!r}", choices(layout, known))
    if (data is None) == (images is None and masks is None):
        raise UsageError(
            "images with masks are either two folders or a published set",
            "Give --images and --masks, or --data.",
        )
    if data is not None:
        masked = _published(Path(data), layout, classes)
    else:
        masked = _plain(images, masks, layout, classes)
    if len(masked) == 0:
        first = (
            f", the first: {masked.skips[0].id}: {masked.skips[0].reason}" if masked.skips else ""
        )
        raise DataError(
            f"no image of {masked.name} has a mask ({len(masked.skips)} left out{first})",
            "An image and its mask have the same name, but for the ending.",
        )
    return masked


def _plain(
    images: str | Path | None, masks: str | Path | None, layout: str, classes: str | Path | None
) -> MaskedImages:
    if layout not in ("auto", "plain"):
        raise UsageError(f"layout {layout} is of a published set", "Give its folder as --data.")
    if images is None or masks is None or classes is None:
        raise UsageError(
            "images of your own need masks and the names of the classes in them",
            "Give --images, --masks and --classes (a text file, one name a line).",
        )
    pictures, left_out = by_stem(Path(images))
    indices, more = by_stem(Path(masks), masks=True)
    names = read_mask_classes(classes)
    return MaskedImages(str(images), pictures, indices, names, skips=[*left_out, *more])


def _published(data: Path, layout: str, classes: str | Path | None) -> MaskedImages:
    if layout == "plain":
        raise UsageError("layout plain is of two folders", "Give --images and --masks.")
    layouts = LAYOUTS.values() if layout == "auto" else [LAYOUTS[layout]]
    for each in layouts:
        if (part := each.look(data)) is None:
            continue
        names = each.classes if classes is None else read_mask_classes(classes)
        if len(names) != len(each.classes):
            raise DataError(
                f"{classes} names {len(names)} classes, {each.name} has {len(each.classes)}",
                "Name them all, in the set's order.",
            )
        return MaskedImages(
            f"{each.name} ({data})", part.images, part.masks, names,
            relabel=part.relabel, skips=part.skips,
        )  # fmt: skip
    looked = "; ".join(f"{each.name}: {each.needs} ({each.source})" for each in layouts)
    raise DataError(f"{data} is no set of masks that lateen knows", f"It looks for {looked}.")


def _one_less(values: Indices) -> Indices:
    """Index 0, which is no class, and the border's 255 to ignored; the others less one."""
    return np.where((values == 0) | (values == IGNORED), IGNORED, values - 1)


def _coco_categories(values: Indices) -> Indices:
    """Category numbers less one to indices among the 171 that are used."""
    used = [value for value in range(_COCO_VALUES) if value not in _COCO_UNUSED]
    table = np.full(256, IGNORED, dtype=np.int32)
    table[used] = np.arange(len(used))
    return table[np.minimum(values, IGNORED)]


def _ade20k(root: Path) -> _ValidationPart | None:
    images, masks = root / "images" / "validation", root / "annotations" / "validation"
    return _joined(images, masks, "", _one_less) if images.is_dir() and masks.is_dir() else None


def _coco_stuff(root: Path) -> _ValidationPart | None:
    folders = [root / "images" / "val2017", root / "val2017"]
    images = next((folder for folder in folders if folder.is_dir()), None)
    names = ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017")
    masks = next((m for name in names if (m := root / name / "val2017").is_dir()), None)
    if images is None or masks is None:
        return None
    if any(masks.glob(f"*{_TRAIN_IDS}.png")):
        return _joined(images, masks, _TRAIN_IDS, None)
    return _joined(images, masks, "", _coco_categories)


def _voc20(root: Path) -> _ValidationPart | None:
    listing = root / "ImageSets" / "Segmentation" / "val.txt"
    if not listing.is_file():
        return None
    stems = read_utf8(listing).split()
    images, masks = (
        {
            stem: FileImage(path)
            for stem in stems
            if (path := root / folder / (stem + end)).is_file()
        }
        for folder, end in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"))
    )
    nowhere = [stem for stem in stems if stem not in images and stem not in masks]
    skips = [Skip(stem, "it has neither image nor mask", str(listing)) for stem in nowhere]
    return _ValidationPart(images, masks, _one_less, skips)


def _joined(
    images: Path, masks: Path, suffix: str, relabel: Callable[[Indices], Indices] | None
) -> _ValidationPart:
    pictures, left_out = by_stem(images)
    indices, more = by_stem(masks, suffix, masks=True)
    return _ValidationPart(pictures, indices, relabel, [*left_out, *more])


_ALL = [
    MaskLayout(
        "ade20k", ("ADEChallengeData2016",),
        "images/validation and annotations/validation",
        "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip", _ade20k,
    ),
    MaskLayout(
        "coco-stuff", ("coco_stuff164k",),
        f"images/val2017 and annotations/val2017 (*{_TRAIN_IDS}.png) or stuffthingmaps/val2017",
        "https://github.com/nightrome/cocostuff", _coco_stuff,
    ),
    MaskLayout(
        "voc20", ("VOC2012", "VOCdevkit/VOC2012"),
        "JPEGImages, SegmentationClass and ImageSets/Segmentation/val.txt",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/", _voc20,
    ),
]  # fmt: skip
LAYOUTS: dict[str, MaskLayout] = {each.name: each for each in _ALL}
"""The published layouts, by name."""
