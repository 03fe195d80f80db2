"""OK-VQA (arXiv:1906.00067): questions about COCO's photographs that need knowledge beside them.

``OpenEnded_mscoco_val2014_questions.json`` and ``mscoco_val2014_annotations.json`` of
https://okvqa.allenai.org, of the form of VQA's. Each of five people's answers stands there twice,
so that VQA accuracy counts ten.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder
from lateen.mllm.benchmarks.questions import SHORT
from lateen.mllm.benchmarks.vqa_files import read_vqa


def read_ok_vqa(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split."""
    return read_vqa(
        folder,
        f"OpenEnded_mscoco_{split}_questions.json",
        f"mscoco_{split}_annotations.json",
        split,
    )


BENCHMARK = Benchmark(
    read_ok_vqa, "human",
    "Get questions and annotations of https://okvqa.allenai.org/download.html into one folder, and "
    "COCO's images into its subfolder val2014.",
    SHORT, ("val2014", "train2014"), ("{split}", "images", "."),
)  # fmt: skip
