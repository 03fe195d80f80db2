"""A model that sees which colours a picture has, and benchmarks of such pictures as published."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import COLOURS, WordEncoder

from lateen.encoders import EncoderInfo
from lateen.evaluation import TASKS
from lateen.evaluation import number as task_number
from lateen.evaluation.intervals import unpacked
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

_PALETTE = np.array(list(COLOURS.values()), np.float32)


class PaletteEncoder:
    """The share of an image's pixels that is nearest to each of the toys' colours: six values."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            id="toys/palette", modality="image", dim=len(COLOURS), pooling="mean", weights="v1",
        )  # fmt: skip

    def prepare(self, items: Sequence[Image.Image]) -> list[torch.Tensor]:
        return [torch.from_numpy(_shares(np.asarray(item, np.float32))) for item in items]

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared))


class BlindEncoder(PaletteEncoder):
    """The same features for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.info = EncoderInfo(
            id="toys/blind", modality="image", dim=len(COLOURS), pooling="none", weights="v1",
        )  # fmt: skip

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.linspace(0.1, 0.7, len(COLOURS)).expand(len(prepared), -1).clone()


def colour_model(vision: PaletteEncoder | None = None) -> AlignedModel:
    """Identity heads: a caption's words against a picture's colours."""
    image, text = vision or PaletteEncoder(), WordEncoder()
    head = HeadSection(name="identity", vision="identity", dim=len(COLOURS), dropout=0.0)
    heads = AlignmentHeads(head, len(COLOURS), len(COLOURS))
    model = AlignedModel.build(
        heads, image.info.as_dict(), text.info.as_dict(), head.model_dump()
    )  # fmt: skip
    model.set_encoders(image, text)
    return model


def picture(*colours: str, kind: str = "PNG") -> bytes:
    """Upright stripes of these colours, 16 pixels wide, 32 high."""
    pixels = np.repeat(np.array([COLOURS[c] for c in colours], np.uint8)[None], 32, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(pixels, 16, 1)).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content: bytes | str | Any) -> Path:
    """Bytes, text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def winoground_row(
    index: int, first: str, second: str, tag: str = "Noun", secondary: str = "", **other: Any
) -> dict[str, Any]:
    """A row of Winoground whose images show the colours of their captions."""
    collapsed = "Object" if tag == "Noun" else "Relation"
    return {
        "id": index, "image_0": f"ex_{index}_img_0", "image_1": f"ex_{index}_img_1",
        "caption_0": first, "caption_1": second, "tag": tag, "secondary_tag": secondary,
        "num_main_preds": 1 + index % 2, "collapsed_tag": collapsed, **other,
    }  # fmt: skip


def winoground_images(rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """By name, the images of rows: their captions' colours, white without."""
    return {
        row[f"image_{side}"]: picture(
            *([c for c in COLOURS if c in row[f"caption_{side}"]] or ["white"])
        )
        for row in rows
        for side in (0, 1)
    }


def mmvp_folder(
    root: Path,
    questions: Sequence[tuple[Any, str, str]],
    *,
    images: Mapping[int, Sequence[str]] | None = None,
    folder: str = "MLLM_VLM Images",
) -> Path:
    """``Questions.csv`` with such rows, and an image of its statement's colours for each."""
    lines = [f'{number},{kind},"{statement}"' for number, kind, statement in questions]
    write(root / "Questions.csv", "\n".join(["Question ID,Type,Statement", *lines]) + "\n")
    for number, kind, statement in questions:
        colours = (images or {}).get(number, [c for c in COLOURS if c in statement])
        if colours:
            write(root / folder / kind / f"{number}.jpg", picture(*colours, kind="JPEG"))
    return root


def _shares(pixels: np.ndarray) -> np.ndarray:
    nearest = ((pixels[:, :, None] - _PALETTE) ** 2).sum(-1).argmin(-1)
    return np.bincount(nearest.ravel(), minlength=len(COLOURS)).astype(np.float32) / nearest.size


def check_intervals(result: Mapping[str, Any]) -> None:
    """Of what a result keeps of its images, its own numbers come out, inside their intervals."""
    statistics = TASKS[result["task"]].statistics
    arrays = unpacked(result)
    assert statistics is not None
    assert arrays is not None
    everyone = np.ones((1, result["n"]))
    for path, statistic in statistics(arrays).items():
        value = task_number(result, path)
        assert statistic.drawn(everyone) == pytest.approx(value), path
        low, high = result["intervals"][path]
        assert low - 1e-9 <= value <= high + 1e-9, path
    headline = TASKS[result["task"]].headline.values()
    there = {path for path in headline if task_number(result, path) is not None}
    assert there <= result["intervals"].keys()
