"""A few queries with the images the model finds for them, for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lateen.data import ImageSource
from lateen.model import AlignedModel
from lateen.report import SheetHit, SheetRow
from lateen.store import Pairs

_ROWS = 8192  # features projected at a time


@torch.no_grad()
def best_matches(
    model: AlignedModel,
    queries: Sequence[str],
    pairs: Pairs,
    images: Mapping[str, ImageSource],
    k: int = 6,
) -> list[SheetRow]:
    """The ``k`` images of ``pairs`` nearest to each query, best first.

    Args:
        model: the trained model.
        queries: sentences.
        pairs: whose image features to search.
        images: where the image of each id is.
        k: hits per query.
    """
    rows = [pairs.image_rows[i : i + _ROWS] for i in range(0, len(pairs), _ROWS)]
    embeddings = torch.cat([model.project_image(pairs.image[part]).cpu() for part in rows])
    best = (model.encode_text(queries) @ embeddings.T).topk(min(k, len(pairs)), dim=1)
    return [
        SheetRow(
            query,
            [
                SheetHit(images[pairs.ids[i]], pairs.ids[i], score)
                for i, score in zip(row.tolist(), scores.tolist(), strict=True)
            ],
        )
        for query, row, scores in zip(queries, best.indices, best.values, strict=True)
    ]
