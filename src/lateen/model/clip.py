"""A ready CLIP or SigLIP as an AlignedModel, so that everything made for ours works on theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from lateen.encoders import load_towers
from lateen.encoders.resolve import resolve
from lateen.errors import EncoderError, ModelError
from lateen.files import read_json
from lateen.model.config import AlignedConfig
from lateen.model.model import AlignedModel
from lateen.progress import log


def clip_model(name: str, *, device: str = "auto", revision: str | None = None) -> AlignedModel:
    """A dual-tower model of transformers (CLIP, SigLIP, …) with its own projections.

    The heads are identities: the towers already end in the shared space.

    Args:
        name: a hub id or folder.
        device: of both towers.
        revision: hub branch, tag or commit.

    Raises:
        ModelError: it has no projection into one space.
        EncoderError: it is not there, or is no dual-tower model.
    """
    vision, text = load_towers(name, device=device, revision=revision)
    if vision.info.dim != text.info.dim:
        raise ModelError(
            f"the towers of {name} end in spaces of {vision.info.dim} and {text.info.dim} values",
            "Align them with `lateen run`, as any two encoders.",
        )
    head = {"name": "identity", "vision": "identity", "dim": vision.info.dim, "dropout": 0.0}
    config = AlignedConfig(vision=vision.info.as_dict(), text=text.info.as_dict(), head=head)
    model = AlignedModel(config)
    model.set_encoders(vision, text)
    folder = resolve(name, revision).folder
    _take_scale(model, folder)
    model.find_records(folder)
    model.eval()
    return model


def open_model(
    path: str | Path, *, vision_encoder: str | None = None, text_encoder: str | None = None
) -> AlignedModel:
    """An AlignedModel, or a ready CLIP as one, by its folder or hub id.

    Args:
        path: its folder, or a hub id.
        vision_encoder: of an AlignedModel: where its vision encoder is now.
        text_encoder: likewise.

    Raises:
        ModelError: there is no such model.
        EncoderError: it is of another kind.
    """
    if is_clip(path):
        return clip_model(str(path))
    return AlignedModel.from_pretrained(
        path, vision_encoder=vision_encoder, text_encoder=text_encoder
    )


def is_clip(path: str | Path) -> bool:
    """Whether a folder, or a hub id, is a dual-tower model of transformers."""
    folder = Path(path).expanduser()
    if folder.is_file():
        return False
    if not folder.is_dir():
        if str(path).count("/") != 1:
            return False
        try:
            folder = resolve(str(path)).folder
        except EncoderError:
            return False
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return "vision_config" in config and "text_config" in config


def _take_scale(model: AlignedModel, folder: Path) -> None:
    """The model's own logit scale and bias; a bias tells of training with the sigmoid loss."""
    scalars = _scalars(folder, ("logit_scale", "logit_bias"))
    if "logit_scale" not in scalars:
        log.warning("%s has no logit_scale: confidences and losses are those of lateen's t", folder)
    with torch.no_grad():
        model.logit_bias.zero_()
        for name, tensor in scalars.items():
            getattr(model, name).copy_(tensor.reshape(()))
    model.config.training = {"loss": "sigmoid" if "logit_bias" in scalars else "infonce"}


def _scalars(folder: Path, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors of a model's weight files, by name, as far as they are there."""
    found: dict[str, torch.Tensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        with safe_open(str(path), framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in set(names) & set(file.keys())}
    for path in [] if files else sorted(folder.glob("*.bin")):
        weights = torch.load(path, map_location="cpu", weights_only=True)
        found |= {name: weights[name] for name in names if name in weights}
    return found
