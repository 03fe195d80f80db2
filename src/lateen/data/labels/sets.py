"""The field's classification sets: how many classes, which metric, where to get them.

The prompts are lateen's own wording, a few for each kind of picture, not CLIP's published lists;
those can be given in a file. A set's own metric is that of METHODS §1.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from lateen.data.labels.names import ClassName, packaged_class_names
from lateen.data.prompts import DOMAIN_TEMPLATES, TEMPLATES
from lateen.errors import UsageError, choices

Metric = Literal["top1", "mean_per_class"]
SPLITS = ("test", "validation", "val", "valid")
"""What a set is judged on, the first that is there."""
_VALIDATED = ("validation", "val", "valid", "test")
_UNKNOWN = "none is known: see the set's own page"


@dataclass(frozen=True)
class ClassificationSet:
    """One set.

    Attributes:
        name: as ``--set`` takes it.
        count: of its classes.
        licence: of its images, in a few words.
        hub: datasets on the Hugging Face hub that hold it, WebDataset first.
        metric: its own.
        kind: of its pictures, as :data:`~lateen.data.prompts.DOMAIN_TEMPLATES` has them.
        file: of its class names, where that is another's.
        ordered: whether data that number the classes do so in the order of the names.
        whole: whether an image may be taken for any class, also one that no image here is of.
        splits: that it is judged on, the first that is there.
    """

    name: str
    count: int
    licence: str
    hub: tuple[str, ...]
    metric: Metric = "top1"
    kind: str = "object"
    file: str = ""
    ordered: bool = True
    whole: bool = True
    splits: tuple[str, ...] = SPLITS

    @cached_property
    def names(self) -> tuple[ClassName, ...]:
        """Its classes, in the order of its labels where there is one."""
        return packaged_class_names(self.file or self.name)

    @property
    def published(self) -> str:
        """What CLIP_benchmark calls it."""
        return self.hub[0].rpartition("wds_")[2].removeprefix("vtab-")

    @property
    def templates(self) -> tuple[str, ...]:
        """Lateen's prompts for it."""
        return DOMAIN_TEMPLATES.get(self.kind, TEMPLATES)

    @property
    def classes(self) -> str:
        """Its classes, in words for a message."""
        return f"the classes of {self.name}"


def _wds(name: str, *others: str) -> tuple[str, ...]:
    return (f"clip-benchmark/wds_{name}", *others)


_ALL = (
    ClassificationSet(
        "imagenet", 1000, "research, under the terms of image-net.org (gated)",
        _wds("imagenet1k", "ILSVRC/imagenet-1k"), splits=_VALIDATED,
    ),
    ClassificationSet(
        "imagenet-v2", 1000, "MIT (its repository)", _wds("imagenetv2"), file="imagenet"
    ),
    # Its pictures are of none of ImageNet's classes; the label is what a ResNet-50 takes them for.
    ClassificationSet(
        "imagenet-o", 200, "MIT (its repository)", _wds("imagenet-o"), file="imagenet",
        ordered=False, whole=False,
    ),
    ClassificationSet(
        "imagenet-sketch", 1000, "MIT (its repository)", _wds("imagenet_sketch"), kind="sketch",
        file="imagenet",
    ),
    ClassificationSet(
        "food101", 101, "research, under Foodspotting's terms", _wds("food101", "ethz/food101"),
        kind="food", ordered=False,
    ),
    ClassificationSet(
        "cifar10", 10, _UNKNOWN, _wds("vtab-cifar10", "uoft-cs/cifar10"), kind="small"
    ),
    ClassificationSet(
        "cifar100", 100, _UNKNOWN, _wds("vtab-cifar100", "uoft-cs/cifar100"), kind="small"
    ),
    ClassificationSet(
        "sun397", 397, _UNKNOWN, _wds("sun397", "tanganke/sun397"), kind="scene", ordered=False
    ),
    ClassificationSet(
        "stanford-cars", 196, "non-commercial research", _wds("cars", "tanganke/stanford_cars"),
        kind="car",
    ),
    ClassificationSet(
        "fgvc-aircraft", 100, "non-commercial research", _wds("fgvc_aircraft"),
        metric="mean_per_class", kind="aircraft",
    ),
    ClassificationSet("dtd", 47, "research", _wds("vtab-dtd", "tanganke/dtd"), kind="texture"),
    ClassificationSet(
        "pets", 37, "CC BY-SA 4.0", _wds("vtab-pets", "timm/oxford-iiit-pet"),
        metric="mean_per_class", kind="pet",
    ),
    ClassificationSet(
        "caltech101", 102, "CC BY 4.0", _wds("vtab-caltech101"), metric="mean_per_class",
        ordered=False, whole=False,
    ),
    ClassificationSet(
        "flowers102", 102, _UNKNOWN, _wds("vtab-flowers"), metric="mean_per_class", kind="flower"
    ),
    ClassificationSet(
        "fer2013", 7, "the terms of its Kaggle challenge", _wds("fer2013"), kind="face",
        ordered=False,
    ),
    ClassificationSet("pcam", 2, "CC0", _wds("vtab-pcam"), kind="histology"),
    ClassificationSet(
        "resisc45", 45, _UNKNOWN, _wds("vtab-resisc45", "timm/resisc45", "tanganke/resisc45"),
        kind="satellite",
    ),
    ClassificationSet(
        "eurosat", 10, "MIT", _wds("vtab-eurosat", "timm/eurosat-rgb", "tanganke/eurosat"),
        kind="satellite",
    ),
    ClassificationSet("svhn", 10, "non-commercial", _wds("vtab-svhn"), kind="house number"),
    ClassificationSet("gtsrb", 43, _UNKNOWN, _wds("gtsrb", "tanganke/gtsrb"), kind="traffic sign"),
    ClassificationSet(
        "clevr-counts", 8, "CC BY 4.0", _wds("vtab-clevr_count_all"), kind="count"
    ),
    ClassificationSet(
        "clevr-distance", 6, "CC BY 4.0", _wds("vtab-clevr_closest_object_distance"),
        kind="distance",
    ),
)  # fmt: skip
SETS: dict[str, ClassificationSet] = {each.name: each for each in _ALL}
"""All sets, by name."""


_BY_HUB_NAME = {name: each for each in _ALL for name in each.hub}


def find_set(name: str | None, source: str = "") -> ClassificationSet | None:
    """The set called ``name``, else the one that the hub has under the name ``source``.

    Raises:
        UsageError: there is no set of that name.
    """
    if name is None:
        return _BY_HUB_NAME.get(source)
    if name not in SETS:
        raise UsageError(f"there is no set {name!r}", choices(name, SETS))
    return SETS[name]
