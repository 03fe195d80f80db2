"""Finding photographs by a sentence."""

from lateen.indexing.photographs import search

__all__ = ["search"]
