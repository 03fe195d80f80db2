"""Frozen encoders behind one small protocol."""

from lateen.encoders.base import Encoder, EncoderInfo, Modality, PatchEncoder
from lateen.encoders.load import load_encoder
from lateen.encoders.specs import known_names

__all__ = ["Encoder", "EncoderInfo", "Modality", "PatchEncoder", "known_names", "load_encoder"]
