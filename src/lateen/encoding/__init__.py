"""The one pass that turns samples into a feature store."""

from lateen.encoding.encode import encode, encode_views
from lateen.encoding.pipeline import token_batches

__all__ = ["encode", "encode_views", "token_batches"]
