"""Files of captions as questions: those of COCO and of Karpathy's splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lateen.data.open import open_dataset
from lateen.data.samples import AbsentImages, Sample
from lateen.mllm.benchmarks.files import Draft
from lateen.mllm.benchmarks.questions import CAPTION


def read_captions(path: Path, split: str | None) -> Iterator[Draft]:
    """A question for each image of a split, whose answers are its captions.

    Args:
        path: JSON of COCO's form or Karpathy's.
        split: of Karpathy's.
    """
    for each in open_dataset(path, images=AbsentImages(), split=split):
        if isinstance(each, Sample):
            answers = tuple(text for texts in each.captions.values() for text in texts)
            yield Draft(each.id, (each.id,), CAPTION, answers, source=str(path))
        elif each.sample:
            yield Draft(each.id, (), "", source=each.source, fault=each.reason)
