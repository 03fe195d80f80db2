"""Images with index masks: plain folders and published sets, for segmentation and patch probing."""

from lateen.data.labels.names import read_mask_classes
from lateen.data.masks.layouts import LAYOUTS, MaskLayout, open_masks
from lateen.data.masks.masks import (
    IGNORED,
    CountedLabels,
    MaskedImage,
    MaskedImages,
    PixelCounts,
    check_same_shape,
    decode_mask,
    settle_binary,
)

__all__ = [
    "IGNORED",
    "LAYOUTS",
    "CountedLabels",
    "MaskLayout",
    "MaskedImage",
    "MaskedImages",
    "PixelCounts",
    "check_same_shape",
    "decode_mask",
    "open_masks",
    "read_mask_classes",
    "settle_binary",
]
