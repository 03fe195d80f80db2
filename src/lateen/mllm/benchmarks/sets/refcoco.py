"""RefCOCO (arXiv:1608.00272): where is what a phrase describes? A box, right from an IoU of 0.5 on.

Parquet files of https://huggingface.co/datasets/lmms-lab/RefCOCO; see
:mod:`lateen.mllm.benchmarks.phrases` for what they have in them.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder
from lateen.mllm.benchmarks.phrases import read_phrases


def read_refcoco(folder: Folder, split: str) -> Iterable[Draft]:
    """A question for each phrase of a split."""
    return read_phrases(folder, split)


BENCHMARK = Benchmark(
    read_refcoco, "box",
    "Get https://huggingface.co/datasets/lmms-lab/RefCOCO: its folder has data/val-*.parquet.",
    splits=("val", "testA", "testB", "test"),
)  # fmt: skip
