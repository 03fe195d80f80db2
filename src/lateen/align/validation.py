"""Retrieval on held-out pairs while training."""

from __future__ import annotations

import torch

from lateen.align.heads import AlignmentHeads
from lateen.metrics.retrieval import Retrieval, retrieval
from lateen.store import Pairs

_CHUNK = 8192


@torch.no_grad()
def validate(heads: AlignmentHeads, pairs: Pairs) -> Retrieval:
    """Retrieval of ``pairs``' images and the captions of their first column.

    Without dropout and in float32 whatever the training's precision, as every later evaluation.
    """
    device = heads.logit_scale.device
    features, owner = pairs.all_texts(0)
    training = heads.training
    heads.eval()
    image = [
        heads.embed_image(pairs.image_features(slice(i, i + _CHUNK)).to(device))
        for i in range(0, len(pairs), _CHUNK)
    ]
    text = [
        heads.embed_text(features[i : i + _CHUNK].to(device))
        for i in range(0, len(features), _CHUNK)
    ]
    heads.train(training)
    return retrieval(torch.cat(image), torch.cat(text), owner)
