"""RefCOCOg (arXiv:1511.02283): where is what a phrase describes? Phrases are whole sentences.

Parquet files of https://huggingface.co/datasets/lmms-lab/RefCOCOg; see
:mod:`lateen.mllm.benchmarks.phrases` for what they have in them.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder
from lateen.mllm.benchmarks.phrases import read_phrases


def read_refcocog(folder: Folder, split: str) -> Iterable[Draft]:
    """A question for each phrase of a split."""
    return read_phrases(folder, split)


BENCHMARK = Benchmark(
    read_refcocog, "box",
    "Get https://huggingface.co/datasets/lmms-lab/RefCOCOg: its folder has data/val-*.parquet.",
    splits=("val", "test"),
)  # fmt: skip
