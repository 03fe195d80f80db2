"""Frozen encoders behind one small protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.encoders.base import SIDES as SIDES
    from lateen.encoders.base import Encoder as Encoder
    from lateen.encoders.base import EncoderInfo as EncoderInfo
    from lateen.encoders.base import EncoderOptions as EncoderOptions
    from lateen.encoders.base import LayeredEncoder as LayeredEncoder
    from lateen.encoders.base import Modality as Modality
    from lateen.encoders.base import PatchEncoder as PatchEncoder
    from lateen.encoders.base import RemoteEncoder as RemoteEncoder
    from lateen.encoders.base import Side as Side
    from lateen.encoders.base import ViewedEncoder as ViewedEncoder
    from lateen.encoders.base import modality_of as modality_of
    from lateen.encoders.base import shared_passes as shared_passes
    from lateen.encoders.fused import FusedEncoder as FusedEncoder
    from lateen.encoders.load import load_encoder as load_encoder
    from lateen.encoders.load import load_parts as load_parts
    from lateen.encoders.load import load_towers as load_towers
    from lateen.encoders.load import load_views as load_views
    from lateen.encoders.load import load_with as load_with
    from lateen.encoders.specs import known_names as known_names
    from lateen.encoders.text import TextEncoder as TextEncoder
    from lateen.encoders.text import TokenEncoder as TokenEncoder
    from lateen.encoders.text import trainable as trainable

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.encoders.base": [
            "SIDES",
            "Encoder",
            "EncoderInfo",
            "EncoderOptions",
            "LayeredEncoder",
            "Modality",
            "PatchEncoder",
            "RemoteEncoder",
            "Side",
            "ViewedEncoder",
            "modality_of",
            "shared_passes",
        ],
        "lateen.encoders.fused": ["FusedEncoder"],
        "lateen.encoders.load": [
            "load_encoder",
            "load_parts",
            "load_towers",
            "load_views",
            "load_with",
        ],
        "lateen.encoders.specs": ["known_names"],
        "lateen.encoders.text": ["TextEncoder", "TokenEncoder", "trainable"],
    },
)
