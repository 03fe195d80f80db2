"""AlignedModel: what training gives back, used like any CLIP."""

from lateen.model.config import AlignedConfig
from lateen.model.model import AlignedModel, AlignedOutput

__all__ = ["AlignedConfig", "AlignedModel", "AlignedOutput"]
