"""The evaluations of SAIL (arXiv:2412.04616) and KUEA, and where their data is looked for.

A suite is a list of these; every place is relative to the folder that the user gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.data.classification import SETS, ClassificationSet
from lateen.data.segmentation import LAYOUTS, MaskLayout

Options = dict[str, Any]

_PROBED = ("svhn", "gtsrb", "clevr-distance", "clevr-counts")  # KUEA's, also by a linear probe
_OF_KUEA_ALONE = {
    *_PROBED, "fer2013", "pcam", "resisc45", "eurosat", "imagenet-o", "imagenet-sketch",
}  # fmt: skip
_COCO_VAL = (
    "sugarcrepe/val2017", "sugarcrepe/images", "coco/val2017", "coco/images/val2017", "val2017",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a suite.

    Attributes:
        name: its own, also of its files.
        task: name of the task.
        set: what it is evaluated on.
        places: where that is looked for, the first that is there.
        source: where to get it: a dataset's name on the hub, or elsewhere.
        gated: whether terms have to be accepted there first.
        find: the task's options, from the suite's folder and a place; ``None`` if the set is not
            there.
    """

    name: str
    task: str
    set: str
    places: tuple[str, ...]
    source: str
    gated: bool
    find: Callable[[Path, Path], Options | None]

    def options(self, root: Path) -> tuple[Path, Options] | None:
        """Where it is below ``root``, with the task's options; ``None`` where it is not."""
        for place in self.places:
            path = root / place
            if path.exists() and (options := self.find(root, path)) is not None:
                return path, options
        return None


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _filled(_: Path, place: Path) -> Options | None:
    return {"data": place} if place.is_file() or any(place.iterdir()) else None


def _labelled(task: str, each: ClassificationSet) -> Evaluation:
    def find(root: Path, place: Path) -> Options | None:
        found = _filled(root, place)
        return found and {**found, "set": each.name}

    hub = each.hub[0]
    end = "-probe" if task == "linear-probe" else ""
    places = dict.fromkeys((each.name, *(name.rpartition("/")[2] for name in each.hub)))
    return Evaluation(
        each.name + end, task, each.name, tuple(places), hub,
        "gated" in each.licence, find,
    )  # fmt: skip


def _karpathy(name: str, images: Sequence[str], source: str) -> Evaluation:
    def find(_: Path, place: Path) -> Options:
        folder = _first(place.parent, images) or place.parent
        return {"captions": place, "images": folder, "split": "test", "per_image": 5}

    return Evaluation(
        f"{name}-retrieval", "retrieval", name, (f"{name}/dataset_{name}.json",),
        f"https://cs.stanford.edu/people/karpathy/deepimagesent/ (captions), {source}", False, find,
    )  # fmt: skip


def _sugarcrepe(root: Path, place: Path) -> Options | None:
    if not any(place.glob("*.json")):
        return None
    return {"data": place, "images": _first(root, _COCO_VAL) or place}


def _masks(layout: MaskLayout) -> Evaluation:
    def find(_: Path, place: Path) -> Options | None:
        found = {"data": place, "layout": layout.name}
        return found if layout.look(place) is not None else None

    # COCO-Stuff's masks may lie with the images of COCO that retrieval uses.
    also = ("coco",) if layout.name == "coco-stuff" else ("VOCdevkit",)
    places = (layout.name, *layout.folders, *(also if layout.name != "ade20k" else ()))
    return Evaluation(
        layout.name, "segmentation", layout.name, places, layout.source, False, find
    )  # fmt: skip


def _paper() -> list[Evaluation]:
    mine = sorted(SETS.values(), key=lambda each: each.name in _OF_KUEA_ALONE)
    return [
        *(_labelled("classification", each) for each in mine),
        *(_labelled("linear-probe", SETS[name]) for name in _PROBED),
        _karpathy("coco", ("images",), "https://cocodataset.org (val2014)"),
        _karpathy(
            "flickr30k", ("flickr30k-images", "flickr30k_images", "images"),
            "https://shannon.cs.illinois.edu/DenotationGraph/",
        ),
        Evaluation(
            "winoground", "winoground", "winoground", ("winoground",),
            "facebook/winoground", True, _filled,
        ),
        Evaluation(
            "sugarcrepe", "caption-choice", "sugarcrepe",
            ("sugarcrepe", "sugarcrepe/data", "sugar-crepe/data"),
            "https://github.com/RAIVNLab/sugar-crepe (folder data), with COCO's val2017", False,
            _sugarcrepe,
        ),
        Evaluation(
            "mmvp-vlm", "mmvp", "mmvp-vlm", ("mmvp-vlm", "MMVP_VLM"),
            "MMVP/MMVP_VLM", False, _filled,
        ),
        *(_masks(layout) for layout in LAYOUTS.values()),
    ]  # fmt: skip


SUITES: dict[str, list[Evaluation]] = {"paper": _paper()}
"""By name: ``paper`` is what SAIL and KUEA report."""
