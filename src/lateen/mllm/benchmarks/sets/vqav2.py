"""VQAv2 (arXiv:1612.00837): questions about COCO's photographs, ten people's answers.

``v2_OpenEnded_mscoco_<split>_questions.json`` and ``v2_mscoco_<split>_annotations.json`` of
https://visualqa.org/download.html. The test splits have no annotations: LLaVA-1.5 uploads answers
to test-dev2015, in the form of https://visualqa.org/evaluation.html, as they are written here.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.metrics.answers import normalise_textvqa
from lateen.mllm.benchmarks.benchmark import Benchmark, uploaded_as
from lateen.mllm.benchmarks.files import Draft, Folder
from lateen.mllm.benchmarks.questions import SHORT
from lateen.mllm.benchmarks.vqa_files import read_vqa


def read_vqav2(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with the answer type as group."""
    return read_vqa(
        folder,
        f"v2_OpenEnded_mscoco_{split}_questions.json",
        f"v2_mscoco_{split}_annotations.json",
        split,
    )


BENCHMARK = Benchmark(
    read_vqav2, "human",
    "Get questions and annotations of https://visualqa.org/download.html into one folder, and "
    "COCO's images into its subfolder val2014 or test2015.",
    SHORT, ("val2014", "test-dev2015", "test2015", "train2014"),
    ("{split}", "test2015", "images", "."), upload=uploaded_as("answer", normalise_textvqa),
)  # fmt: skip
