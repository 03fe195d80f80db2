"""Models used on what people have: photographs found, indexed, labelled, embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.indexing.embeddings import Embeddings as Embeddings
    from lateen.indexing.embeddings import embed as embed
    from lateen.indexing.filters import Filters as Filters
    from lateen.indexing.folders import index as index
    from lateen.indexing.folders import search as search
    from lateen.indexing.hits import Found as Found
    from lateen.indexing.hits import Hit as Hit
    from lateen.indexing.labels import Labelling as Labelling
    from lateen.indexing.labels import classify as classify
    from lateen.indexing.photo_index import Index as Index
    from lateen.indexing.query import Query as Query
    from lateen.indexing.query import Term as Term

# So that a search loads no torch.
__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.indexing.embeddings": ["Embeddings", "embed"],
        "lateen.indexing.filters": ["Filters"],
        "lateen.indexing.folders": ["index", "search"],
        "lateen.indexing.hits": ["Found", "Hit"],
        "lateen.indexing.photo_index": ["Index"],
        "lateen.indexing.labels": ["Labelling", "classify"],
        "lateen.indexing.query": ["Query", "Term"],
    },
)
