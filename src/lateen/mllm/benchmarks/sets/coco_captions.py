"""COCO captions (arXiv:1504.00325): a sentence about a photograph, held against five people's.

``dataset_coco.json`` of https://cs.stanford.edu/people/karpathy/deepimagesent/, whose test split
of 5,000 papers report, OpenFlamingo among them; or COCO's own ``captions_<split>.json``, as in
``annotations``. CIDEr-D. The prompt is LLaVA-1.5's for captions of one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.caption_files import read_captions
from lateen.mllm.benchmarks.files import Draft, Folder

_KARPATHY = ("test", "val", "train")


def read_coco_captions(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split of Karpathy's, or of COCO's own."""
    if split in _KARPATHY:
        return read_captions(folder.file("dataset_coco.json", "*/dataset_coco.json"), split)
    name = f"captions_{split}.json"
    return read_captions(folder.file(name, f"annotations/{name}"), None)


BENCHMARK = Benchmark(
    read_coco_captions, "caption",
    "Get dataset_coco.json of https://cs.stanford.edu/people/karpathy/deepimagesent/ and the "
    "folders val2014 and train2014 of https://cocodataset.org into one folder.",
    splits=(*_KARPATHY, "val2014", "train2014", "val2017", "train2017"),
    folders=(".", "images", "{split}", "images/{split}"),
)  # fmt: skip
