"""All evaluation tasks, by name."""

from __future__ import annotations

from lateen.evaluation.classification import evaluate_classification
from lateen.evaluation.retrieval import evaluate_retrieval
from lateen.evaluation.task import Task

_ALL = [
    Task(
        "retrieval", evaluate_retrieval,
        {
            f"{short} {key}": f"{way}.{key}"
            for way, short in (("text_to_image", "T2I"), ("image_to_text", "I2T"))
            for key in ("R@1", "R@5", "R@10")
        },
        "image-caption pairs, both ways",
    ),
    Task(
        "classification", evaluate_classification, {"top-1": "top1", "top-5": "top5"},
        "zero-shot, a folder with a subfolder of images per class",
    ),
]  # fmt: skip

TASKS: dict[str, Task] = {task.name: task for task in _ALL}
