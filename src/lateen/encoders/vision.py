"""Any Hugging Face vision model as a frozen image encoder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from lateen.device import forward_pass
from lateen.encoders.base import Encoder, EncoderInfo, view_info
from lateen.encoders.faults import explained, probing
from lateen.encoders.weights import quiet_transformers
from lateen.errors import EncoderError

# Settings of a processor that can change pixel values.
_PROCESSING = (
    "image_processor_type", "size", "crop_size", "resample", "do_resize", "do_center_crop",
    "do_rescale", "do_normalize", "rescale_factor", "image_mean", "image_std",
)  # fmt: skip
_LONGEST_ASPECT = 100
_INTERPOLATE = "interpolate_pos_encoding"  # transformers' option for sizes other than the model's


@dataclass(frozen=True)
class TokenLayout:
    """How a model lays out its output tokens.

    Attributes:
        prefix: tokens before the patches (CLS, registers, distillation); registers are not patches.
        spatial: True for feature maps ``[n, c, h, w]``, False for tokens ``[n, t, c]``.
        pooler: whether the checkpoint has a trained pooler.
    """

    prefix: int
    spatial: bool
    pooler: bool

    @property
    def poolings(self) -> list[str]:
        """The poolings this model can give."""
        names = ["cls", "mean", "cls+mean"] if self.prefix else ["mean"]
        return [*names, "pooler"] if self.pooler else names


class VisionEncoder:
    """A frozen transformers vision model with one pooling.

    Args:
        model: the network, in evaluation mode; it takes ``pixel_values [n, 3, H, W]``.
        processor: the model's own image processor.
        info: its description; ``dim`` may be 0, it is filled in here.
        device: where the forward pass runs.
        pooler_trained: whether the checkpoint had pooler weights.
        project: for ``projection`` pooling: pixel values to the embedding of a dual tower.
        project_tokens: likewise for features per patch: output tokens ``[n, t, c]`` to the shared
            space, as ``project`` takes the CLS token there; ``None`` where there is no such map.

    Raises:
        EncoderError: the model has no such pooling or layer; the choices are listed.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        info: EncoderInfo,
        device: torch.device,
        *,
        pooler_trained: bool = True,
        project: Callable[[torch.Tensor], torch.Tensor] | None = None,
        project_tokens: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        # channels_last is what convolutions on bf16 processors are fastest in.
        self._model = model.to(device=device, memory_format=torch.channels_last)
        self._processor = processor
        self._device = device
        self._project = project
        self._project_tokens = project_tokens
        self._pooler_trained = pooler_trained
        self._interpolates = _INTERPOLATE in inspect.signature(model.forward).parameters
        self.info = info
        with probing(info.id):
            probe = self._probe(self._forward)
            patches = info.pooling == "projection" and project_tokens is not None
            tokens = self._probe(self._run) if patches else probe
            self.layout = _layout(tokens, self.image_size, model.config, pooler_trained)
        self._check(probe)
        dim = self._pool(probe).shape[1]
        self.info = EncoderInfo(**{**info.as_dict(), "dim": dim})

    def prepare(self, items: Sequence[Image]) -> list[torch.Tensor]:
        """RGB images to pixel values ``[3, H, W]``, by the model's own processor.

        Raises:
            ValueError: an image is over 100 times as long as wide: resizing its shorter edge to
                the model's size would take gigabytes.
        """
        for image in items:
            if max(image.size) > _LONGEST_ASPECT * min(image.size):
                width, height = image.size
                raise ValueError(f"aspect ratio {width}:{height} is beyond {_LONGEST_ASPECT}:1")
        values = self._processor(images=list(items), return_tensors="pt")["pixel_values"]
        return list(values)

    def prepare_uncut(self, items: Sequence[Image]) -> list[torch.Tensor]:
        """RGB images to pixel values ``[3, H, W]`` of their own size: normalised, not resized."""
        values = self._processor(
            images=list(items), do_resize=False, do_center_crop=False, return_tensors="pt"
        )["pixel_values"]
        return list(values)

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pooled features ``[n, dim]``, float32."""
        with forward_pass(self._device, self.info.precision):
            return self._pool(self._forward(prepared)).float().cpu()

    def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """Patch features ``[n, patches, dim]``, float32, in raster order.

        Images may have another size than the model's own (:meth:`prepare_uncut`), for which its
        position embeddings are interpolated, if it can.

        Raises:
            EncoderError: the pooling has no per-patch counterpart (``cls``, ``pooler``, and the
                ``projection`` of a model that pools by attention, as SigLIP).
        """
        self._check_patches()
        with forward_pass(self._device, self.info.precision):
            tokens = self._tokens(self._run(prepared))
            patches = tokens[:, self.layout.prefix :]
            if self.info.pooling == "cls+mean":
                patches = torch.cat([tokens[:, :1].expand_as(patches), patches], dim=-1)
            elif self.info.pooling == "projection" and self._project_tokens is not None:
                patches = self._project_tokens(patches)
        return patches.float().cpu()

    def view(self, pooling: str | None = None, layer: int | None = None) -> VisionEncoder:
        """The same network with another pooling and layer; see
        :class:`~lateen.encoders.ViewedEncoder`."""
        return VisionEncoder(
            self._model, self._processor, view_info(self.info, pooling, layer), self._device,
            pooler_trained=self._pooler_trained, project=self._project,
            project_tokens=self._project_tokens,
        )  # fmt: skip

    def encode_views(self, prepared: Sequence[Any], views: Sequence[Encoder]) -> list[torch.Tensor]:
        """Pooled features ``[n, dim]`` of every view, float32, from one forward pass."""
        ours = [view for view in views if isinstance(view, VisionEncoder)]
        # A projection has a forward pass of its own; all other views share one.
        together = [view for view in ours if view.info.pooling != "projection"]
        hidden = any(view.info.layer is not None for view in together)
        with forward_pass(self._device, self.info.precision):
            shared = together[0]._forward(prepared, hidden=hidden) if together else None
            outputs = [shared if view in together else view._forward(prepared) for view in ours]
            return [
                view._pool(output).float().cpu() for view, output in zip(ours, outputs, strict=True)
            ]

    @property
    def network(self) -> Any:
        """The transformers model; it belongs to all views, so leave it as it was."""
        return self._model

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of what :meth:`prepare` gives."""
        size = getattr(self._processor, "crop_size", None) or self._processor.size
        edge = size.get("shortest_edge")
        return (size.get("height") or edge, size.get("width") or edge)

    def _probe(self, forward: Callable[[list[torch.Tensor]], Any]) -> Any:
        """One black image through the model: tells shapes, and that the forward pass works."""
        height, width = self.image_size
        with forward_pass(self._device, self.info.precision):
            return forward([torch.zeros(3, height, width)])

    def _forward(self, prepared: Sequence[torch.Tensor], *, hidden: bool = False) -> Any:
        if self.info.pooling == "projection" and self._project is not None:
            return self._project(self._pixels(prepared))
        return self._run(prepared, hidden=hidden)

    def _pixels(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared)).to(self._device, memory_format=torch.channels_last)

    def _run(self, prepared: Sequence[torch.Tensor], *, hidden: bool = False) -> Any:
        """What the network itself gives, before any pooling."""
        pixels = self._pixels(prepared)
        options: dict[str, Any] = {}
        if self._interpolates and tuple(pixels.shape[2:]) != self.image_size:
            options[_INTERPOLATE] = True
        if self._model.config.model_type == "vit_mae":
            # Nothing is masked (mask_ratio 0), and ordered noise keeps the patches in order.
            edge = self._model.config.patch_size
            patches = (pixels.shape[2] // edge) * (pixels.shape[3] // edge)
            options["noise"] = torch.arange(patches, device=self._device).expand(len(pixels), -1)
        hidden = hidden or self.info.layer is not None
        return self._model(pixel_values=pixels, output_hidden_states=hidden, **options)

    def _check_patches(self) -> None:
        pooling = self.info.pooling
        if pooling == "projection" and self._project_tokens is None:
            raise EncoderError(
                f"{self.info.id} maps only its pooled output to the shared space, as SigLIP does, "
                "so pooling 'projection' has no features per patch",
                "Use a CLIP, or pooling mean or cls+mean with a head of your own.",
            )
        if pooling not in ("mean", "cls+mean", "projection"):
            raise EncoderError(
                f"pooling {pooling!r} has no features per patch", "Use pooling mean or cls+mean."
            )

    def _check(self, output: Any) -> None:
        pooling, layer = self.info.pooling, self.info.layer
        valid = self.layout.poolings + (["projection"] if self._project else [])
        if pooling not in valid:
            raise EncoderError(
                f"{self.info.id} has no pooling {pooling!r}", f"Choose one of: {', '.join(valid)}."
            )
        if layer is None:
            return
        if pooling in ("pooler", "projection"):
            raise EncoderError(
                f"pooling {pooling!r} works on the last layer, not on layer {layer}",
                "Use pooling cls, mean or cls+mean with a layer.",
            )
        last = len(output.hidden_states) - 1
        if not -last - 1 <= layer <= last:
            raise EncoderError(
                f"{self.info.id} has hidden layers 0 (embeddings) to {last}, not {layer}",
                "Choose a layer in that range.",
            )

    def _tokens(self, output: Any) -> torch.Tensor:
        layer = self.info.layer
        hidden: torch.Tensor = (
            output.last_hidden_state if layer is None else output.hidden_states[layer]
        )
        return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden

    def _pool(self, output: Any) -> torch.Tensor:
        pooling = self.info.pooling
        if pooling == "projection":
            return torch.as_tensor(output)
        if pooling == "pooler":
            return torch.as_tensor(output.pooler_output).flatten(1)
        tokens = self._tokens(output).float()
        mean = tokens[:, self.layout.prefix :].mean(1)
        if pooling == "mean":
            return mean
        cls = tokens[:, 0]
        return cls if pooling == "cls" else torch.cat([cls, mean], dim=1)


def _layout(output: Any, size: tuple[int, int], config: Any, pooler_trained: bool) -> TokenLayout:
    """How the tokens of ``output``, of an image of ``size``, are laid out."""
    if isinstance(output, torch.Tensor):
        return TokenLayout(0, False, True)
    hidden = output.last_hidden_state
    pooler = getattr(output, "pooler_output", None) is not None and pooler_trained
    if hidden.ndim == 4:
        return TokenLayout(0, True, pooler)
    patch = getattr(config, "patch_size", None)
    if patch is None:
        return TokenLayout(0, False, pooler)
    edge = (patch, patch) if isinstance(patch, int) else tuple(patch)
    patches = (size[0] // edge[0]) * (size[1] // edge[1])
    return TokenLayout(max(0, hidden.shape[1] - patches), False, pooler)


def load_processor(folder: Path, *, trust_remote_code: bool) -> Any:
    """The folder's image processor in its PIL form, which needs no torchvision.

    Raises:
        EncoderError: the folder has no preprocessing configuration.
    """
    from transformers import AutoImageProcessor

    reading = explained(
        f"{folder} has no usable image preprocessing (preprocessor_config.json)",
        "Add the model's own preprocessor_config.json to the folder.",
    )
    with quiet_transformers(), reading:
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=trust_remote_code
        )


def describe_processing(processor: Any) -> dict[str, Any]:
    """The settings of an image processor that can change pixel values, JSON-ready."""
    values = json.loads(processor.to_json_string())
    return {name: values[name] for name in _PROCESSING if values.get(name) is not None}
