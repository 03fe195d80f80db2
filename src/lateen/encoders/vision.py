"""Any Hugging Face vision model as a frozen image encoder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import nn

from lateen.device import forward_pass
from lateen.encoders.base import Encoder, EncoderInfo, hidden_layers, view_info
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


class VisionNetwork(nn.Module):
    """A transformers vision model and its pooling: what an encoder computes from pixels.

    Gradients flow where they are enabled.

    Args:
        model: takes ``pixel_values [n, 3, H, W]``.
        info: the encoder's; its pooling and layer count.
        layout: how the model lays out its output tokens.
        size: height and width in pixels of the model's own images.
        dual: for ``projection`` pooling: the model with two towers that ``model`` is one of.

    Attributes:
        model: the transformers model.
        dual: as given.
        layout: as given.
    """

    def __init__(
        self, model: Any, info: EncoderInfo, layout: TokenLayout, size: tuple[int, int],
        dual: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dual = dual
        if dual is None:
            self.model = model
        else:  # inside the dual model already: a module has each of its parameters once
            object.__setattr__(self, "model", model)
        self.layout = layout
        self._info, self._size = info, size
        self._interpolates = _INTERPOLATE in inspect.signature(model.forward).parameters

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixel values ``[n, 3, H, W]`` to features ``[n, dim]``, float32."""
        return self.pooled(self.output(pixels)).float()

    def views(self, networks: Sequence[VisionNetwork], pixels: torch.Tensor) -> list[torch.Tensor]:
        """Features ``[n, dim]``, float32, of each of ``networks``, which share this one's model, in
        one forward pass.

        Args:
            networks: this one may be among them.
            pixels: ``[n, 3, H, W]``.
        """
        # A projection has a forward pass of its own; all other views share one.
        together = [network for network in networks if not network.projects]
        hidden = any(network._info.layer is not None for network in networks)
        shared = together[0].output(pixels, hidden=hidden) if together else None
        return [
            network.pooled(network.output(pixels) if network.projects else shared).float()
            for network in networks
        ]

    @property
    def projects(self) -> bool:
        """Whether the features are those of a dual tower's own projection."""
        return self._info.pooling == "projection" and self.dual is not None

    def output(self, pixels: torch.Tensor, *, hidden: bool = False) -> Any:
        """What :meth:`pooled` takes: the model's output, or the embedding of a dual tower.

        Args:
            pixels: ``[n, 3, H, W]``.
            hidden: with the hidden states of all layers.
        """
        if self.projects:
            return projected(self.dual.get_image_features(pixel_values=pixels))
        return self.run(pixels, hidden=hidden)

    def run(self, pixels: torch.Tensor, *, hidden: bool = False) -> Any:
        """What the model itself gives, before any pooling."""
        options: dict[str, Any] = {}
        if self._interpolates and tuple(pixels.shape[2:]) != self._size:
            options[_INTERPOLATE] = True
        if self.model.config.model_type == "vit_mae":
            # Nothing is masked (mask_ratio 0), and ordered noise keeps the patches in order.
            edge = self.model.config.patch_size
            patches = (pixels.shape[2] // edge) * (pixels.shape[3] // edge)
            options["noise"] = torch.arange(patches, device=pixels.device).expand(len(pixels), -1)
        hidden = hidden or self._info.layer is not None
        return self.model(pixel_values=pixels, output_hidden_states=hidden, **options)

    def pooled(self, output: Any) -> torch.Tensor:
        """What :meth:`output` gives, pooled: features ``[n, dim]``."""
        pooling = self._info.pooling
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

    def patches(self, output: Any) -> torch.Tensor:
        """Patch features ``[n, patches, dim]``, in raster order, of what :meth:`run` gives."""
        tokens = self._tokens(output)
        patches = tokens[:, self.layout.prefix :]
        if self._info.pooling == "cls+mean":
            return torch.cat([tokens[:, :1].expand_as(patches), patches], dim=-1)
        if self.projects:
            # What a CLIP does to its CLS token, for any token.
            projected = self.dual.visual_projection(self.dual.vision_model.post_layernorm(patches))
            return torch.as_tensor(projected)
        return patches

    def with_patches(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``[n, dim]`` and those of every patch ``[n, patches, dim]``, float32, in one
        forward pass."""
        output = self.run(pixels)
        if self.projects:
            features = self.dual.visual_projection(output.pooler_output)
        else:
            features = self.pooled(output)
        return features.float(), self.patches(output).float()

    @property
    def projects_patches(self) -> bool:
        """Whether the dual tower maps single tokens, as CLIP does; others pool before they map."""
        return hasattr(self.model, "post_layernorm") and hasattr(self.dual, "visual_projection")

    def _tokens(self, output: Any) -> torch.Tensor:
        layer = self._info.layer
        hidden: torch.Tensor = (
            output.last_hidden_state if layer is None else output.hidden_states[layer]
        )
        return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


class VisionEncoder:
    """A frozen transformers vision model with one pooling.

    Args:
        model: the network, in evaluation mode; it takes ``pixel_values [n, 3, H, W]``.
        processor: the model's own image processor.
        info: its description; ``dim`` may be 0, it is filled in here.
        device: where the forward pass runs.
        pooler_trained: whether the checkpoint had pooler weights.
        dual: for ``projection`` pooling: the model with two towers that ``model`` is one of.

    Attributes:
        info: its description.
        network: what computes features from pixels; its model belongs to all views, so leave it as
            it was.
        processor: the model's own image processor.

    Raises:
        EncoderError: the model has no such pooling or layer; the choices are listed.
    """

    def __init__(
        self, model: Any, processor: Any, info: EncoderInfo, device: torch.device, *,
        pooler_trained: bool = True, dual: Any = None,
    ) -> None:  # fmt: skip
        # channels_last is what convolutions on bf16 processors are fastest in.
        model = model.to(device=device, memory_format=torch.channels_last)
        self.processor = processor
        self._device = device
        self._pooler_trained = pooler_trained
        self.info = info
        unknown = TokenLayout(0, False, pooler_trained)
        self.network = VisionNetwork(model, info, unknown, self.image_size, dual)
        with probing(info.id):
            probe = self.probe(self.network.output)
            patches = self.network.projects and self.network.projects_patches
            tokens = self.probe(self.network.run) if patches else probe
            layout = _layout(tokens, self.image_size, model.config, pooler_trained)
            self.network.layout = layout
        self._check(probe)
        dim = self.network.pooled(probe).shape[1]
        self.info = EncoderInfo(**{**info.as_dict(), "dim": dim})

    def prepare(self, items: Sequence[Image]) -> list[torch.Tensor]:
        """RGB images to pixel values ``[3, H, W]``, by the model's own processor.

        Raises:
            ValueError: an image is over 100 times as long as wide: resizing its shorter edge to
                the model's size would take gigabytes.
        """
        return pixel_values(self.processor, items)

    def prepare_uncut(self, items: Sequence[Image]) -> list[torch.Tensor]:
        """RGB images to pixel values ``[3, H, W]`` of their own size: normalised, not resized."""
        values = self.processor(
            images=list(items), do_resize=False, do_center_crop=False, return_tensors="pt"
        )["pixel_values"]
        return list(values)

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pooled features ``[n, dim]``, float32."""
        with forward_pass(self._device, self.info.precision):
            features: torch.Tensor = self.network(self._pixels(prepared))
        return features.cpu()

    def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """Patch features ``[n, patches, dim]``, float32, in raster order.

        Images may have another size than the model's own (:meth:`prepare_uncut`), for which its
        position embeddings are interpolated, if it can.

        Raises:
            EncoderError: the pooling has no per-patch counterpart (``cls``, ``pooler``, and the
                ``projection`` of a model that pools by attention, as SigLIP).
        """
        self.check_patches()
        with forward_pass(self._device, self.info.precision):
            patches = self.network.patches(self.network.run(self._pixels(prepared)))
        return patches.float().cpu()

    def view(self, pooling: str | None = None, layer: int | None = None) -> VisionEncoder:
        """The same network with another pooling and layer; see
        :class:`~lateen.encoders.ViewedEncoder`.

        A hidden map of a convolutional network has no pooling but the mean, and needs none named.
        """
        info = view_info(self.info, pooling, layer)
        if pooling is None and layer is not None and self.layout.spatial:
            load = {**info.load, "pooling": "mean"} if "pooling" in info.load else info.load
            info = replace(info, pooling="mean", load=load)
        return VisionEncoder(
            self.network.model, self.processor, info, self._device,
            pooler_trained=self._pooler_trained, dual=self.network.dual,
        )  # fmt: skip

    def encode_views(self, prepared: Sequence[Any], views: Sequence[Encoder]) -> list[torch.Tensor]:
        """Pooled features ``[n, dim]`` of every view, float32, from one forward pass."""
        networks = [view.network for view in views if isinstance(view, VisionEncoder)]
        with forward_pass(self._device, self.info.precision):
            features = self.network.views(networks, self._pixels(prepared))
        return [each.cpu() for each in features]

    def layers(self) -> list[int]:
        """The hidden layers that there are; see :class:`~lateen.encoders.LayeredEncoder`.

        Of a convolutional network they are the maps after its blocks or stages.
        """
        return hidden_layers(self.probe(partial(self.network.run, hidden=True)))

    @property
    def shared(self) -> tuple[int, ...]:
        """What its views have in common; see :class:`~lateen.encoders.LayeredEncoder`."""
        return id(self.network.model), id(self.processor)

    @property
    def layout(self) -> TokenLayout:
        """How the model lays out its output tokens."""
        return self.network.layout

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of what :meth:`prepare` gives."""
        return processed_size(self.processor)

    def probe(self, forward: Callable[[torch.Tensor], Any]) -> Any:
        """One black image through the model: tells shapes, and that the forward pass works.

        Args:
            forward: of the :attr:`network`: takes pixel values.
        """
        height, width = self.image_size
        with forward_pass(self._device, self.info.precision):
            return forward(self._pixels([torch.zeros(3, height, width)]))

    def _pixels(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared)).to(self._device, memory_format=torch.channels_last)

    def check_patches(self) -> None:
        """See that there is a feature per patch that its pooling is made of.

        Raises:
            EncoderError: there is none.
        """
        pooling = self.info.pooling
        if pooling == "projection" and not self.network.projects_patches:
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
        valid = self.layout.poolings + (["projection"] if self.network.dual is not None else [])
        if pooling not in valid:
            raise EncoderError(
                f"{self.info.id} has no pooling {pooling!r}", f"Choose one of: {', '.join(valid)}."
            )
        if layer is None:
            return
        if pooling in ("pooler", "projection"):
            tokens = [name for name in valid if name not in ("pooler", "projection")]
            raise EncoderError(
                f"pooling {pooling!r} works on the last layer, not on layer {layer}",
                f"Use pooling {' or '.join(tokens)} with a layer.",
            )
        last = len(output.hidden_states) - 1
        if not -last - 1 <= layer <= last:
            first = "the first map" if self.layout.spatial else "embeddings"
            raise EncoderError(
                f"{self.info.id} has hidden layers 0 ({first}) to {last}, not {layer}",
                "Choose a layer in that range.",
            )


def projected(output: Any) -> torch.Tensor:
    """The embedding ``[n, dim]`` in what ``get_image_features`` or ``get_text_features`` of a dual
    model gives: itself, or an output that has it."""
    return torch.as_tensor(getattr(output, "pooler_output", output))


def _layout(output: Any, size: tuple[int, int], config: Any, pooler_trained: bool) -> TokenLayout:
    """How the tokens of ``output``, of an image of ``size``, are laid out."""
    if isinstance(output, torch.Tensor):
        return TokenLayout(0, False, True)
    hidden = output.last_hidden_state
    pooler = getattr(output, "pooler_output", None) is not None and pooler_trained
    if hidden.ndim == 4:
        return TokenLayout(0, True, pooler)
    grid = patch_grid(config, size)
    if grid is None:
        return TokenLayout(0, False, pooler)
    return TokenLayout(max(0, hidden.shape[1] - grid[0] * grid[1]), False, pooler)


def patch_grid(config: Any, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the patches of an image, by what a network's configuration says of their
    size; ``None`` if it says nothing.

    Args:
        config: of a transformers vision model.
        size: height and width of the image in pixels.
    """
    patch = getattr(config, "patch_size", None)
    if patch is None:
        return None
    edge = (patch, patch) if isinstance(patch, int) else tuple(patch)
    return size[0] // edge[0], size[1] // edge[1]


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


def pixel_values(processor: Any, items: Sequence[Image]) -> list[torch.Tensor]:
    """RGB images to pixel values ``[3, H, W]``, by a model's own processor.

    Raises:
        ValueError: an image is over 100 times as long as wide.
    """
    for image in items:
        if max(image.size) > _LONGEST_ASPECT * min(image.size):
            width, height = image.size
            raise ValueError(f"aspect ratio {width}:{height} is beyond {_LONGEST_ASPECT}:1")
    return list(processor(images=list(items), return_tensors="pt")["pixel_values"])


def processed_size(processor: Any) -> tuple[int, int]:
    """Height and width in pixels of what a processor gives."""
    size = getattr(processor, "crop_size", None) or processor.size
    edge = size.get("shortest_edge")
    return (size.get("height") or edge, size.get("width") or edge)


def describe_processing(processor: Any) -> dict[str, Any]:
    """The settings of an image processor that can change pixel values, JSON-ready."""
    values = json.loads(processor.to_json_string())
    return {name: values[name] for name in _PROCESSING if values.get(name) is not None}
