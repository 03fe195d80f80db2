"""Published numbers to hold results against (METHODS §1.7 and §2), and how a table shows them.

They are of other training data and other encoders, and were taken with other prompts: they stand
beside results for orientation and are never part of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lateen.data.labels import SETS

Result = Mapping[str, Any]

SAIL_L = "SAIL-L"
"""DINOv2-L with NV-Embed-2, 23M pairs (arXiv:2412.04616)."""


SAIL_CC3M = "SAIL CC3M"
"""The last row of SAIL's ablation: GLU×8, sigmoid, multi-positive, trained on CC3M."""


CLIP_B, CLIP_L, CLIP_L336 = "CLIP B-16", "CLIP L-14", "CLIP L-14-336"
"""OpenAI's, as KUEA measured them."""


KUEA_B, KUEA_L, KUEA_L336 = "KUEA B-16", "KUEA L-14", "KUEA L-14-336"
"""The same after KUEA's alignment with DINOv2 (arXiv:2506.02557)."""


BEFORE: Mapping[str, str] = {
    KUEA_B: CLIP_B, KUEA_L: CLIP_L, KUEA_L336: CLIP_L336,
    "KUEA SigLIP": "SigLIP", "KUEA DFN": "DFN", "KUEA MetaCLIP": "MetaCLIP",
}  # fmt: skip
"""What each of KUEA's models started from."""


KUEA_SETS = (
    "imagenet", "cifar10", "cifar100", "caltech101", "pets", "dtd", "fer2013", "pcam", "resisc45",
    "eurosat", "imagenet-o", "imagenet-sketch",
)  # fmt: skip
"""KUEA's zero-shot sets."""


MLLM_SUITES: Mapping[str, tuple[str, ...]] = {
    "vqa": ("seed-bench", "gqa", "vizwiz", "pope", "textvqa", "mmbench", "vqav2"),
    "sail": ("seed-bench", "gqa", "vizwiz", "pope", "textvqa", "mmbench", "vqav2"),
    "kuea": (
        "ai2d", "textvqa", "pope", "tallyqa", "vsr", "refcocog", "refcoco-plus", "refcoco", "vqav2",
        "vizwiz", "gqa", "mmvp",
    ),
    "in-context": (
        "coco-captions", "flickr30k-captions", "ok-vqa", "hateful-memes", "vqav2", "textvqa",
        "vizwiz",
    ),
}  # fmt: skip
"""Benchmarks of multimodal language models by suite: ``vqa`` and ``sail`` are SAIL's seven,
``in-context`` the seven of KUEA's OpenFlamingo, which stand behind examples there.

KUEA reports the mean of twelve for LLaVA-1.5. Which these are is not known here: ``kuea`` has the
eleven of its evaluations that are, and MMVP, which it reports apart.
"""


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
    ("classification", "svhn"): ("images", 26_032),
    ("classification", "gtsrb"): ("images", 12_630),
    ("classification", "clevr-distance"): ("images", 15_000),
    ("classification", "clevr-counts"): ("images", 15_000),
    ("linear-probe", "svhn"): ("images", 26_032),
    ("linear-probe", "gtsrb"): ("images", 12_630),
    ("linear-probe", "clevr-distance"): ("images", 15_000),
    ("linear-probe", "clevr-counts"): ("images", 15_000),
    ("retrieval", "coco"): ("images", 5_000),
    ("retrieval", "flickr30k"): ("images", 1_000),
    ("winoground", "winoground"): ("examples", 400),
    ("mmvp", "mmvp-vlm"): ("pairs", 135),
    ("patch-probe", "coco-stuff"): ("images", 5_000),
}
_MOST_SOURCES = 4  # in a table
_READABLE = 0.98  # of the images: a few that cannot be read make no other set


def shortfall(result: Result) -> str:
    """How much less than its set a result is of, as ``10 of 1,000 classes``; empty if nothing."""
    name = str(result.get("set") or "").partition(" (")[0]
    task = str(result.get("task"))
    if "classes" in result and name in SETS and SETS[name].whole:
        there = int(result["classes"]) - len(result.get("empty_classes", ()))
        if there < SETS[name].count:
            return f"{there:,} of {SETS[name].count:,} classes"
    if whole := result.get("of_questions"):
        return f"{int(result['questions']):,} of {int(whole):,} questions"
    key, size = _SIZES.get((task, name), ("", 0))
    if key and int(result.get(key, size)) < _READABLE * size:
        return f"{int(result[key]):,} of {size:,} {key}"
    return ""


_KUEA_11, _KUEA_12 = "mean of KUEA's 11 sets beside ImageNet", "mean of KUEA's 12 sets"
AVERAGES = (
    Average(
        "mean of SAIL's 10 sets",
        ("food101", "cifar10", "cifar100", "sun397", "stanford-cars", "fgvc-aircraft", "dtd",
         "pets", "caltech101", "flowers102"),
        "score",
    ),
    # KUEA reports ImageNet and, apart from it, the mean of the others.
    Average(_KUEA_11, tuple(name for name in KUEA_SETS if name != "imagenet"), "top1"),
    Average(_KUEA_12, KUEA_SETS, "top1"),
)  # fmt: skip
"""Means over sets that are one number in a paper."""


def _kuea(after: str, before: float, value: float) -> tuple[Published, Published]:
    """A number before and after KUEA's alignment."""
    return Published(before, BEFORE[after]), Published(value, after)


_IMAGENET = (
    *_kuea(KUEA_B, 67.72, 67.84), *_kuea(KUEA_L, 74.9, 75.52), *_kuea(KUEA_L336, 75.82, 76.3),
)  # fmt: skip
_OTHERS = (
    *_kuea(KUEA_B, 61.22, 62.04), *_kuea(KUEA_L, 65.26, 66.54), *_kuea(KUEA_L336, 66.1, 67.13),
)  # fmt: skip


def _in_llava(tower: str) -> str:
    """A tower in LLaVA-1.5-7B (arXiv:2310.03744), at 224 pixels but for KUEA's of 336."""
    return f"{tower} in LLaVA"


# SEED, GQA, VizWiz, POPE, TextVQA, MMBench, VQAv2; the tower tuned, too, or frozen.
_SAILS_TOWERS = {
    "SAIL-L": (65.43, 62.63, 50.0, 86.16, 46.53, 60.14, 76.77),
    "CLIP L-14": (64.15, 61.54, 49.93, 85.73, 54.18, 64.12, 76.36),
    "DINOv2-L": (62.12, 61.53, 46.59, 85.7, 45.92, 58.85, 74.69),
    "CLIP L-14, frozen": (64.05, 61.58, 48.87, 85.74, 54.56, 63.06, 75.32),
    "DINOv2-L, frozen": (61.47, 61.08, 44.12, 85.5, 45.37, 56.96, 74.4),
}
# As LLaVA-1.5's own scripts give them: SAIL's table does not say.
_THEIR_METRIC = {"pope": "F1", "mmbench": "circular"}
_SAIL_IN_LLAVA = {
    ("mllm", name, _THEIR_METRIC.get(name, "accuracy")): tuple(
        Published(values[at], _in_llava(tower)) for tower, values in _SAILS_TOWERS.items()
    )
    for at, name in enumerate(MLLM_SUITES["sail"])
}
PUBLISHED: Mapping[tuple[str, str, str], tuple[Published, ...]] = {
    ("classification", "imagenet", "top-1"): (
        Published(73.4, SAIL_L), Published(54.0, SAIL_CC3M), *_IMAGENET,
    ),
    ("classification", "mean of SAIL's 10 sets", "accuracy"): (Published(72.1, SAIL_L),),
    ("classification", _KUEA_11, "accuracy"): (
        *_OTHERS, *_kuea("KUEA SigLIP", 70.26, 70.71), *_kuea("KUEA DFN", 71.4, 71.88),
        *_kuea("KUEA MetaCLIP", 67.86, 68.73),
    ),
    # Worked out of the two that are published.
    ("classification", _KUEA_12, "accuracy"): tuple(
        Published(round((one.value + 11 * others.value) / 12, 2), one.source)
        for one, others in zip(_IMAGENET, _OTHERS, strict=True)
    ),
    ("classification", "svhn", "top-1"): _kuea(KUEA_L, 57.02, 59.63),
    ("classification", "gtsrb", "top-1"): _kuea(KUEA_L, 50.55, 52.53),
    ("classification", "clevr-distance", "top-1"): _kuea(KUEA_L, 20.21, 23.39),
    ("classification", "clevr-counts", "top-1"): _kuea(KUEA_L, 19.43, 21.11),
    # Of the embedding: KUEA's probes are CLIP_benchmark's, behind the tower's projection.
    ("linear-probe", "svhn", "embedding"): _kuea(KUEA_L, 65.2, 69.39),
    ("linear-probe", "gtsrb", "embedding"): _kuea(KUEA_L, 72.94, 74.51),
    ("linear-probe", "clevr-distance", "embedding"): _kuea(KUEA_L, 22.97, 30.82),
    ("linear-probe", "clevr-counts", "embedding"): _kuea(KUEA_L, 41.25, 49.67),
    ("retrieval", "coco", "T2I R@1"): (
        Published(48.6, SAIL_L), Published(32.9, SAIL_CC3M), *_kuea(KUEA_L, 34.51, 35.98),
    ),
    ("retrieval", "coco", "I2T R@1"): (
        Published(62.4, SAIL_L), Published(45.4, SAIL_CC3M), *_kuea(KUEA_L, 50.64, 51.72),
    ),
    ("retrieval", "flickr30k", "T2I R@1"): (Published(75.7, SAIL_L), *_kuea(KUEA_L, 63.62, 64.78)),
    ("retrieval", "flickr30k", "I2T R@1"): (Published(87.6, SAIL_L), *_kuea(KUEA_L, 81.4, 83.0)),
    ("winoground", "winoground", "text"): (Published(40.25, SAIL_L),),
    ("winoground", "winoground", "image"): (Published(18.75, SAIL_L),),
    ("winoground", "winoground", "group"): (Published(15.0, SAIL_L),),
    ("mmvp", "mmvp-vlm", "pair accuracy"): (
        Published(28.9, SAIL_L), *_kuea(KUEA_B, 12.59, 15.56), *_kuea(KUEA_L, 17.78, 20.74),
        *_kuea(KUEA_L336, 19.26, 21.48),
    ),
    **_SAIL_IN_LLAVA,
    ("mllm", "mmvp", "pairs"): (
        Published(23.33, _in_llava(CLIP_L336)), Published(24.67, _in_llava(KUEA_L336)),
        Published(34.0, _in_llava(f"{KUEA_L336}, LoRA")),
    ),
    ("patch-probe", "coco-stuff", "local recall"): _kuea(KUEA_L, 46.4, 47.44),
    ("patch-probe", "coco-stuff", "global recall"): _kuea(KUEA_L, 54.51, 55.33),
}  # fmt: skip
"""By task, set (as the suite calls it) and metric (as in a task's headline)."""


_LLAVA = (
    "LLaVA is LLaVA-1.5-7B, with all of its training. Its own scripts ask VQAv2's test-dev and "
    "VizWiz's test, and put the words that a text recogniser found into TextVQA's prompts."
)
_REMARKS: Mapping[tuple[str, str], str] = {
    ("retrieval", KUEA_L): (
        "Others could not reproduce the retrieval of KUEA L-14: on Flickr30k they measured 79.20 "
        "(I2T R@1) and 60.70 (T2I R@1), less than CLIP's."
    ),
    ("patch-probe", KUEA_L): (
        "On which set KUEA probes patches is not known: its numbers need not be of this one."
    ),
    ("mllm", _in_llava(SAIL_L)): _LLAVA,
    ("mllm", _in_llava(CLIP_L336)): _LLAVA,
}
"""What is to be known of a source's numbers, by task."""


class Shown(NamedTuple):
    """As many of the published numbers as a table has room for.

    Attributes:
        cells: a text for each row, such as ``73.4 SAIL-L, 74.9→75.52 KUEA L-14``.
        note: how to read them, what is to be known of them, and which are left out.
    """

    cells: list[str]
    note: str


def shown(rows: Sequence[tuple[str, Sequence[Published]]]) -> Shown:
    """The sources that report the most of these rows; a model before and after is one of them.

    Args:
        rows: task and published numbers of each row.
    """
    values = [{each.source: each.value for each in numbers} for _, numbers in rows]
    start = set(BEFORE.values())
    counts = Counter(source for row in values for source in row if source not in start)
    chosen = [source for source, _ in counts.most_common(_MOST_SOURCES)]
    cells = [
        ", ".join(_numbers(row, source) for source in row if source in chosen) for row in values
    ]
    found = {(task, source) for (task, _), row in zip(rows, values, strict=True) for source in row}
    notes = ["Published a→b: before and after KUEA."] if any("→" in each for each in cells) else []
    notes += dict.fromkeys(words for (task, source), words in _REMARKS.items()
                           if source in chosen and (task, source) in found)  # fmt: skip
    if more := [source for source in counts if source not in chosen]:
        notes.append(f"Also published, and given in JSON and CSV: {', '.join(more)}.")
    return Shown(cells, " ".join(notes))


def _numbers(row: Mapping[str, float], source: str) -> str:
    """A source's number, behind that of the model that it started from."""
    before = row.get(BEFORE.get(source, ""))
    return f"{'' if before is None else f'{before:g}→'}{row[source]:g} {source}"
