"""Models used on a folder of photographs: found, labelled, embedded."""

from lateen.indexing.embeddings import Embeddings, embed
from lateen.indexing.labels import Labelling, classify
from lateen.indexing.photographs import search

__all__ = ["Embeddings", "Labelling", "classify", "embed", "search"]
