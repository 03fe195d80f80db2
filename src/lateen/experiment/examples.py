"""A few queries with the images the model finds for them, for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lateen.data import ImageSource
from lateen.evaluation import project_rows
from lateen.model import AlignedModel
from lateen.report import SheetHit, SheetRow
from lateen.store import Pairs


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
    embeddings = project_rows(model.project_image, pairs.image, pairs.image_rows)
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
