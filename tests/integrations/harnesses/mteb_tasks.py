"""Tasks of mteb itself, with pictures of this machine in the place of their data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.tasks.image_text_pair_classification.eng.winoground import Winoground
from mteb.tasks.retrieval.eng.flickr30k_i2t_retrieval import Flickr30kI2TRetrieval
from mteb.tasks.retrieval.eng.flickr30k_t2i_retrieval import Flickr30kT2IRetrieval
from mteb.tasks.zeroshot_classification.eng.cifar import CIFAR10ZeroShotClassification

Captioned = Sequence[tuple[Path, Sequence[str]]]


def text_to_image(pairs: Captioned) -> Flickr30kT2IRetrieval:
    """Captions look for their picture."""
    return _retrieval(Flickr30kT2IRetrieval(), pairs, "text")


def image_to_text(pairs: Captioned) -> Flickr30kI2TRetrieval:
    """Pictures look for their captions."""
    return _retrieval(Flickr30kI2TRetrieval(), pairs, "image")


def zero_shot(pictures: Sequence[Path], labels: Sequence[int], names: Sequence[str]) -> Any:
    """Pictures are told apart by "a photo of a {}.", the task's own prompt."""
    columns = {"img": list(map(str, pictures)), "label": list(labels)}
    rows = Dataset.from_dict(columns).cast_column("img", Image())
    return _loaded(
        CIFAR10ZeroShotClassification(),
        {"test": rows.cast_column("label", ClassLabel(names=list(names)))},
    )


def pairs_of_pairs(cases: Sequence[tuple[Path, Path, str, str]]) -> Winoground:
    """Two pictures and two captions each, of which the first belong together, and the second."""
    names = ("image_0", "image_1", "caption_0", "caption_1")
    columns = dict(zip(names, zip(*cases, strict=True), strict=True))
    rows = Dataset.from_dict({name: list(map(str, each)) for name, each in columns.items()})
    for name in names[:2]:
        rows = rows.cast_column(name, Image())
    task: Winoground = _loaded(Winoground(), {"test": rows})
    return task


def _retrieval(task: AbsTaskRetrieval, pairs: Captioned, queries: str) -> Any:
    pictures = Dataset.from_dict(
        {"id": [f"i{i}" for i in range(len(pairs))], "image": [str(path) for path, _ in pairs]}
    ).cast_column("image", Image())
    owners = [i for i, (_, captions) in enumerate(pairs) for _ in captions]
    texts = Dataset.from_dict(
        {"id": [f"t{j}" for j in range(len(owners))],
         "text": [caption for _, captions in pairs for caption in captions]}
    )  # fmt: skip
    relevant: dict[str, dict[str, int]] = {}
    for caption, image in enumerate(owners):
        ends = (f"t{caption}", f"i{image}")
        query, found = ends if queries == "text" else ends[::-1]
        relevant.setdefault(query, {})[found] = 1
    asked, corpus = (texts, pictures) if queries == "text" else (pictures, texts)
    split = {"corpus": corpus, "queries": asked, "relevant_docs": relevant, "top_ranked": None}
    return _loaded(task, {"default": {"test": split}})


def _loaded(task: Any, data: Any) -> Any:
    """The task as it is after its data were downloaded."""
    task.dataset, task.data_loaded = data, True
    return task
