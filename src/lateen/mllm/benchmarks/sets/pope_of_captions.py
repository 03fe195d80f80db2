"""POPE made of a captioned dataset: is there such a thing in the image, by what captions name?

See :mod:`lateen.mllm.benchmarks.captioned`: half of the answers are no for each thing, and *no* has
noise, since captions name fewer things than there are.
"""

from __future__ import annotations

from lateen.data.samples import Dataset
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.captioned import pope_from_captions
from lateen.mllm.benchmarks.questions import SHORT, QuestionSet


def pope_of(dataset: Dataset) -> QuestionSet:
    """With 30 things and 50 yes for each at most."""
    return pope_from_captions(dataset)


BENCHMARK = Benchmark(
    None, "yes-no", "Give a dataset with captions: a table, COCO's or Karpathy's JSON.", SHORT,
    of_dataset=pope_of,
)  # fmt: skip
