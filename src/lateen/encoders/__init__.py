"""Frozen encoders behind one small protocol."""

from lateen.encoders.base import (
    SIDES,
    Encoder,
    EncoderInfo,
    Modality,
    PatchEncoder,
    Side,
    ViewedEncoder,
    modality_of,
)
from lateen.encoders.fused import FusedEncoder
from lateen.encoders.load import load_encoder, load_towers, load_views
from lateen.encoders.specs import known_names
from lateen.encoders.text import TextEncoder, TokenEncoder, trainable

__all__ = [
    "SIDES", "Encoder", "EncoderInfo", "FusedEncoder", "Modality", "PatchEncoder", "Side",
    "TextEncoder", "TokenEncoder", "ViewedEncoder", "known_names", "load_encoder", "load_towers",
    "load_views", "modality_of", "trainable",
]  # fmt: skip
