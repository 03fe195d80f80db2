"""AlignedModel: what training gives back, used like any CLIP."""

from transformers import AutoConfig, AutoModel

from lateen.model.card import CardResult
from lateen.model.clip import clip_model, open_model
from lateen.model.config import AlignedConfig
from lateen.model.model import AlignedModel, AlignedOutput

__all__ = [
    "AlignedConfig",
    "AlignedModel",
    "AlignedOutput",
    "CardResult",
    "clip_model",
    "open_model",
]

# So that transformers' own loaders know the folders that save_pretrained writes.
AutoConfig.register(AlignedConfig.model_type, AlignedConfig, exist_ok=True)
AutoModel.register(AlignedConfig, AlignedModel, exist_ok=True)
