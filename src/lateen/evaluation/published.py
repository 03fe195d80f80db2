"""Published numbers to hold results against (METHODS §1.7 and §2).

They are of other training data and other encoders, and were taken with other prompts: they stand
beside results for orientation and are never part of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lateen.data.labels import SETS

Result = Mapping[str, Any]

SAIL_L = "SAIL-L"
"""DINOv2-L with NV-Embed-2, 23M pairs (arXiv:2412.04616)."""


SAIL_CC3M = "SAIL CC3M"
"""The last row of SAIL's ablation: GLU×8, sigmoid, multi-positive, trained on CC3M."""


CLIP_L, KUEA_L = "CLIP L-14", "KUEA L-14"
"""CLIP before and after KUEA's alignment with DINOv2."""


class Published(NamedTuple):
    """A number in percent, and whose it is."""

    value: float
    source: str


class Average(NamedTuple):
    """A mean that papers report.

    Attributes:
        name: what it is called here, in the place of a set's name.
        sets: whose zero-shot accuracies are averaged.
        metric: of each: ``score`` is the set's own, ``top1`` top-1 accuracy throughout.
    """

    name: str
    sets: tuple[str, ...]
    metric: str


# What papers judge on; of less, a number is another's. Classes are those of data.labels.SETS.
_SIZES: Mapping[tuple[str, str], tuple[str, int]] = {
    ("classification", "imagenet"): ("images", 50_000),
    ("classification", "imagenet-sketch"): ("images", 50_889),
    ("classification", "cifar10"): ("images", 10_000),
    ("classification", "cifar100"): ("images", 10_000),
    ("classification", "food101"): ("images", 25_250),
    ("classification", "stanford-cars"): ("images", 8_041),
    ("classification", "fgvc-aircraft"): ("images", 3_333),
    ("classification", "dtd"): ("images", 1_880),
    ("classification", "pets"): ("images", 3_669),
    ("classification", "pcam"): ("images", 32_768),
    ("retrieval", "coco"): ("images", 5_000),
    ("retrieval", "flickr30k"): ("images", 1_000),
    ("winoground", "winoground"): ("examples", 400),
    ("mmvp", "mmvp-vlm"): ("pairs", 135),
}
_READABLE = 0.98  # of the images: a few that cannot be read make no other set


def shortfall(result: Result) -> str:
    """How much less than its set a result is of, as ``10 of 1,000 classes``; empty if nothing."""
    name = str(result.get("set") or "").partition(" (")[0]
    task = str(result.get("task"))
    if "classes" in result and name in SETS and SETS[name].whole:
        there = int(result["classes"]) - len(result.get("empty_classes", ()))
        if there < SETS[name].count:
            return f"{there:,} of {SETS[name].count:,} classes"
    key, size = _SIZES.get((task, name), ("", 0))
    if key and int(result.get(key, size)) < _READABLE * size:
        return f"{int(result[key]):,} of {size:,} {key}"
    return ""


AVERAGES = (
    Average(
        "mean of SAIL's 10 sets",
        ("food101", "cifar10", "cifar100", "sun397", "stanford-cars", "fgvc-aircraft", "dtd",
         "pets", "caltech101", "flowers102"),
        "score",
    ),
    Average(
        "mean of KUEA's 12 sets",
        ("imagenet", "cifar10", "cifar100", "caltech101", "pets", "dtd", "fer2013", "pcam",
         "resisc45", "eurosat", "imagenet-o", "imagenet-sketch"),
        "top1",
    ),
)  # fmt: skip
"""Means over sets that are one number in a paper."""


PUBLISHED: Mapping[tuple[str, str, str], tuple[Published, ...]] = {
    ("classification", "imagenet", "top-1"): (Published(73.4, SAIL_L), Published(54.0, SAIL_CC3M)),
    ("classification", "mean of SAIL's 10 sets", "accuracy"): (Published(72.1, SAIL_L),),
    ("classification", "mean of KUEA's 12 sets", "accuracy"): (
        Published(65.26, CLIP_L), Published(66.54, KUEA_L),
    ),
    ("retrieval", "coco", "T2I R@1"): (Published(48.6, SAIL_L), Published(32.9, SAIL_CC3M)),
    ("retrieval", "coco", "I2T R@1"): (Published(62.4, SAIL_L), Published(45.4, SAIL_CC3M)),
    ("retrieval", "flickr30k", "T2I R@1"): (Published(75.7, SAIL_L),),
    ("retrieval", "flickr30k", "I2T R@1"): (Published(87.6, SAIL_L),),
    ("winoground", "winoground", "text"): (Published(40.25, SAIL_L),),
    ("winoground", "winoground", "image"): (Published(18.75, SAIL_L),),
    ("winoground", "winoground", "group"): (Published(15.0, SAIL_L),),
    ("mmvp", "mmvp-vlm", "pair accuracy"): (Published(28.9, SAIL_L),),
}  # fmt: skip
"""By task, set (as the suite calls it) and metric (as in a task's headline)."""
