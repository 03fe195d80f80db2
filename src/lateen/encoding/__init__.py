"""The one pass that turns samples into a feature store."""

from lateen.encoding.encode import encode
from lateen.encoding.pipeline import token_batches

__all__ = ["encode", "token_batches"]
