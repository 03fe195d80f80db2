"""Where a vision encoder attends to, as pictures (METHODS §2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from lateen.data import Sample, Skip, decode_image, open_dataset
from lateen.data.samples import HashedImage
from lateen.encoders import Encoder, FusedEncoder
from lateen.encoders.patches import attention_maps, has_attention
from lateen.errors import DataError, EncoderError, ImageError, UsageError
from lateen.evaluation.features import JudgedImages, conditions, find_trained_on
from lateen.evaluation.tables import left_out, titled
from lateen.evaluation.task import Result, Task
from lateen.files import make_folder
from lateen.model import AlignedModel
from lateen.progress import bar
from lateen.report.overlays import picture_name, spread
from lateen.report.tables import (
    Column,
    TableData,
)

_TOLD = 20  # of what was left out, in a result


def evaluate_attention(
    model: AlignedModel,
    *,
    images: str | Path,
    out: str | Path,
    layer: int = -2,
    pictures: int = 16,
    heads: int = 4,
    split: str | None = None,
) -> dict[str, Any]:
    """Attention of the CLS token to the patches as pictures: mean of all heads, and a few heads.

    Where an encoder has no CLS token it is the mean over its patches' queries. Of a fused encoder,
    each part that has attention is shown.

    Args:
        model: an aligned model; only its vision encoder is used.
        images: folder of images, or any other source of images.
        out: folder for a picture per image.
        layer: which block, as a Python index: -2 is the last but one.
        pictures: how many images, evenly spread.
        heads: how many heads to show by themselves.
        split: of a hub dataset.

    Returns:
        With ``encoders``: for each its number of heads, its grid of patches, and ``entropy``, which
        says how evenly the mean of heads is spread over the patches: 100 % if each has the same.

    Raises:
        EncoderError: the encoder has no attention, or no such block.
        DataError: there is no image that can be read.
        UsageError: no picture is asked for.
    """
    if min(pictures, heads) < 1:
        raise UsageError("there is nothing to show", "Give --pictures and --heads of 1 or more.")
    parts = _attentive(model.vision_encoder)
    dataset = open_dataset(images, split=split)
    chosen = spread(len(dataset), pictures)
    out = make_folder(out)
    shown: list[str] = []
    skips: list[Skip] = []
    judged = JudgedImages()
    with bar(len(chosen), "attention", "image") as progress:
        for position, sample in enumerate(dataset):
            if position not in chosen:
                continue
            progress.update()
            if isinstance(sample, Skip):
                skips.append(sample)
                continue
            try:
                shown += _draw(sample, parts, layer, heads, out, shown, judged)
            except (ImageError, ValueError) as error:
                skips.append(Skip(sample.id, str(error), getattr(sample.image, "name", "")))
    if not shown:
        raise DataError(
            f"no image of {dataset.name} can be shown",
            f"The first: {skips[0].id}: {skips[0].reason}." if skips else "It is empty.",
        )
    return {
        "images": len(chosen) - len(skips),
        "layer": layer,
        "encoders": [part.as_dict() for part in parts],
        "skipped": len(skips),
        "skips": [skip.as_dict() for skip in skips[:_TOLD]],
        "pictures": shown,
        "trained_on": find_trained_on(model, judged),
        "conditions": conditions(model, dataset.fingerprint),
    }


@dataclass
class _Part:
    """A vision transformer, and what its attention was like so far."""

    encoder: Encoder
    shape: tuple[int, ...] = ()
    entropies: list[float] = field(default_factory=list)

    def look(self, prepared: Sequence[Any], layer: int) -> Tensor:
        """The maps ``[heads, rows, columns]`` of one image."""
        maps = attention_maps(self.encoder, prepared, layer)[0]
        self.shape = tuple(maps.shape)
        self.entropies.append(_entropy(maps.mean(dim=0)))
        return maps

    def as_dict(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.info.id,
            "heads": self.shape[0],
            "grid": list(self.shape[1:]),
            "entropy": math.fsum(self.entropies) / len(self.entropies),
        }


def _attentive(encoder: Encoder) -> list[_Part]:
    """The encoder, or its parts, where they have attention.

    Raises:
        EncoderError: none has.
    """
    parts = encoder.parts if isinstance(encoder, FusedEncoder) else [encoder]
    attentive = [_Part(part) for part in parts if has_attention(part)]
    if not attentive:
        raise EncoderError(
            f"{encoder.info.id} has no attention that could be shown",
            "Use a model whose vision encoder is a vision transformer.",
        )
    return attentive


def _draw(
    sample: Sample, parts: Sequence[_Part], layer: int, heads: int, out: Path,
    taken: Sequence[str], judged: JudgedImages,
) -> list[str]:  # fmt: skip
    """Write a picture for each part, and add the image to those judged; the pictures' names, none
    of them ``taken``."""
    from lateen.report.overlays import attention_overlay
    from lateen.report.plots import save_plot

    if sample.image is None:
        raise ImageError("it has no image")
    source = HashedImage(sample.image)
    photograph = decode_image(source)
    inputs = [part.encoder.prepare([photograph]) for part in parts]
    names: list[str] = []
    for number, (part, prepared) in enumerate(zip(parts, inputs, strict=True)):
        maps = part.look(prepared, layer)
        figure = attention_overlay(
            _seen(prepared[0], part.encoder), maps.numpy(), title=sample.id, heads=heads,
            note=f"{part.encoder.info.id.rpartition('/')[2]}, block {layer}",
        )  # fmt: skip
        of = f"-{number}" if len(parts) > 1 else ""
        names.append(picture_name(f"{sample.id}{of}", [*taken, *names]))
        save_plot(figure, out / names[-1])
    judged.add(sample.id, source)
    return names


def _seen(pixels: Tensor, encoder: Encoder) -> Any:
    """Pixel values ``[3, H, W]`` as the picture they were made of ``[H, W, 3]``, 0 to 1."""
    settings = encoder.info.preprocessing
    mean = pixels.new_tensor(settings.get("image_mean", [0.0] * 3))
    scale = pixels.new_tensor(settings.get("image_std", [1.0] * 3))
    return (pixels.permute(1, 2, 0) * scale + mean).clamp(0, 1).numpy()


def _entropy(weights: Tensor) -> float:
    share = (weights / weights.sum()).flatten().double()
    return float(100 * -(share * share.clamp_min(1e-300).log()).sum() / math.log(len(share)))


def attention_tables(result: Result) -> Iterator[TableData]:
    """What was drawn, and how evenly the attention is spread."""
    yield TableData(
        titled("Attention", result),
        [Column("encoder"), Column("heads", 0), Column("patches"), Column("evenness (%)", 1)],
        [
            [PurePath(part["encoder"]).name, part["heads"], "×".join(map(str, part["grid"])),
             part["entropy"]]
            for part in result["encoders"]
        ],
        f"{result['images']:,} images, block {result['layer']}. Evenness is 100 % where every "
        f"patch gets the same.{left_out(result)}",
    )  # fmt: skip


TASK = Task(
    evaluate_attention,
    {},
    attention_tables, order=100,
)  # fmt: skip
