"""Frozen encoders behind one small protocol."""

from lateen.encoders.base import Encoder, EncoderInfo, Modality, PatchEncoder, ViewedEncoder
from lateen.encoders.fused import FusedEncoder
from lateen.encoders.load import load_encoder, load_views
from lateen.encoders.specs import known_names
from lateen.encoders.text import TextEncoder, TokenEncoder, trainable

__all__ = [
    "Encoder", "EncoderInfo", "FusedEncoder", "Modality", "PatchEncoder", "TextEncoder",
    "TokenEncoder", "ViewedEncoder", "known_names", "load_encoder", "load_views", "trainable",
]  # fmt: skip
