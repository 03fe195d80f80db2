"""What a model is given, checked and brought into one form."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from PIL.Image import Image
from torch import Tensor

from lateen.data import FileImage, decode_image, upright_rgb
from lateen.errors import ImageError, ModelError


def as_image(item: Image | str | Path) -> Image:
    """A path or an opened image as the encoders see files: RGB, upright, on white.

    Raises:
        ImageError: a file that cannot be decoded, named.
    """
    if isinstance(item, Image):
        return upright_rgb(item)
    try:
        return decode_image(FileImage(Path(item)))
    except ImageError as error:
        raise ImageError(f"{item}: {error.message}") from error


def check_features(features: Tensor, dim: int, modality: Literal["image", "text"]) -> None:
    """See that features are ``[n, dim]``.

    Raises:
        ModelError: they are not.
    """
    if features.ndim != 2 or features.shape[1] != dim:
        raise ModelError(
            f"{modality} features of shape {list(features.shape)} do not fit this model, "
            f"whose {modality} encoder gives [n, {dim}]",
            "Use features of the encoder that the model was trained with.",
        )
