"""All evaluation tasks, by name."""

from __future__ import annotations

from lateen.evaluation.attention import evaluate_attention
from lateen.evaluation.caption_choice import evaluate_caption_choice
from lateen.evaluation.classification import evaluate_classification
from lateen.evaluation.mmvp import evaluate_mmvp
from lateen.evaluation.patch_probe import evaluate_patch_probe
from lateen.evaluation.probes import evaluate_knn, evaluate_linear_probe
from lateen.evaluation.retrieval import evaluate_retrieval
from lateen.evaluation.segmentation import evaluate_segmentation
from lateen.evaluation.task import Task
from lateen.evaluation.winoground import evaluate_winoground

_ALL = [
    Task(
        "retrieval", evaluate_retrieval,
        {
            f"{short} {key}": f"{way}.{key}"
            for way, short in (("text_to_image", "T2I"), ("image_to_text", "I2T"))
            for key in ("R@1", "R@5", "R@10", "median_rank")
        } | {"rsum": "rsum"},
        "image-caption pairs, both ways",
    ),
    Task(
        "classification", evaluate_classification,
        {"top-1": "top1", "top-5": "top5", "mean per class": "mean_per_class"},
        "zero-shot, labelled images: a folder with a subfolder per class, shards, the hub",
    ),
    Task(
        "knn", evaluate_knn, {"encoder k=10": "encoder.10", "embedding k=10": "embedding.10"},
        "labelled images: vote of the nearest neighbours, without a text",
    ),
    Task(
        "linear-probe", evaluate_linear_probe,
        {"encoder": "encoder.accuracy", "embedding": "embedding.accuracy"},
        "labelled images: logistic regression on frozen features",
    ),
    Task(
        "winoground", evaluate_winoground, {"text": "text", "image": "image", "group": "group"},
        "two images and two captions of the same words",
    ),
    Task(
        "caption-choice", evaluate_caption_choice, {"accuracy": "accuracy"},
        "the right caption against wrong ones: SugarCrepe, ARO",
    ),
    Task(
        "mmvp", evaluate_mmvp, {"pair accuracy": "pair_accuracy"},
        "MMVP-VLM: pairs of images that CLIP takes for alike, by visual pattern",
    ),
    Task(
        "segmentation", evaluate_segmentation,
        {"mIoU": "miou", "pixel accuracy": "pixel_accuracy"},
        "open-vocabulary segmentation of images with index masks",
    ),
    Task(
        "patch-probe", evaluate_patch_probe,
        {"local recall": "local.macro_recall", "global recall": "global.macro_recall"},
        "what a linear layer reads out of single patches",
    ),
    Task(
        "attention", evaluate_attention, {},
        "where the vision encoder attends to, as pictures",
    ),
]  # fmt: skip


TASKS: dict[str, Task] = {task.name: task for task in _ALL}
