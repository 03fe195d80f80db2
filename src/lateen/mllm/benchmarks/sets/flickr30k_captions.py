"""Flickr30k captions (arXiv:1505.04870): a sentence about a photograph, held against five people's.

``dataset_flickr30k.json`` of https://cs.stanford.edu/people/karpathy/deepimagesent/, whose test
split of 1,000 papers report, OpenFlamingo among them. CIDEr-D. The prompt is LLaVA-1.5's for
captions of one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.caption_files import read_captions
from lateen.mllm.benchmarks.files import Draft, Folder


def read_flickr30k_captions(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split of Karpathy's."""
    return read_captions(folder.file("dataset_flickr30k.json", "*/dataset_flickr30k.json"), split)


BENCHMARK = Benchmark(
    read_flickr30k_captions, "caption",
    "Get dataset_flickr30k.json of https://cs.stanford.edu/people/karpathy/deepimagesent/ and "
    "flickr30k-images of https://shannon.cs.illinois.edu/DenotationGraph/ into one folder.",
    splits=("test", "val", "train"),
    folders=("flickr30k-images", "flickr30k_images", "images", "."),
)  # fmt: skip
