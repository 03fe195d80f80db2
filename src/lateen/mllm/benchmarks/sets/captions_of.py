"""Captions of any captioned dataset: a sentence is asked for, and held against people's (CIDEr-D).

The prompt is that of LLaVA-1.5 for captions of one sentence.
"""

from __future__ import annotations

from lateen.data.samples import Dataset
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.captioned import captions_from
from lateen.mllm.benchmarks.questions import QuestionSet


def captions_of(dataset: Dataset) -> QuestionSet:
    """Of every image that has some."""
    return captions_from(dataset)


BENCHMARK = Benchmark(
    None, "caption", "Give a dataset with captions: a table, COCO's or Karpathy's JSON.",
    of_dataset=captions_of,
)  # fmt: skip
