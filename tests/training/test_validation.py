from __future__ import annotations

import torch

from lateen.metrics.retrieval import retrieval
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads
from lateen.training.validation import validate

from .conftest import MakePairs


def test_validation_is_the_retrieval_of_the_first_column_without_dropout(
    make_pairs: MakePairs,
) -> None:
    pairs = make_pairs([2, 1, 3, 1], columns=2)
    heads = AlignmentHeads(HeadSection(dim=4, dropout=0.5), pairs.image.dim, 8).train()
    text, owner = pairs.all_texts(0)
    heads.eval()
    with torch.no_grad():
        image = heads.embed_image(pairs.image_features(slice(None)))
        expected = retrieval(image, heads.embed_text(text), owner)
    heads.train()
    assert validate(heads, pairs) == expected
    assert heads.training
