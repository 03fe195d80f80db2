"""The items of a plan: what there is to encode, at the rates measured, and the disk it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lateen.data import ImageFolder
from lateen.data.prompts import TEMPLATES
from lateen.encoders import Encoder, FusedEncoder, TextEncoder, TokenEncoder
from lateen.encoders.config import TextSection, VisionSection
from lateen.experiment.planning.data import Counted, Split, count_items
from lateen.experiment.planning.rates import Rate, image_rate, text_rate
from lateen.experiment.recipe import Recipe
from lateen.features import Pairs
from lateen.features.manifest import FeatureDtype


@dataclass(frozen=True)
class Cost:
    """One item of a plan.

    Attributes:
        item: what is done.
        stage: that it belongs to: ``load``, ``encode``, ``train`` or ``evaluate``.
        seconds: predicted, by the median round of the measurement.
        low: by its fastest round.
        high: by its slowest.
        count: of what there is to do.
        unit: what is counted, in the singular.
        bytes: that it adds to the disk.
        encoder: that it runs, if it does.
    """

    item: str
    stage: str
    seconds: float
    low: float
    high: float
    count: int
    unit: str
    bytes: int = 0
    encoder: str | None = None

    @classmethod
    def of(cls, item: str, stage: str, count: int, unit: str, rate: Rate, **more: Any) -> Cost:
        """The cost of ``count`` items at a rate."""
        return cls(
            item, stage, count / rate.middle, count / rate.high, count / rate.low, count, unit,
            **more,
        )  # fmt: skip

    @classmethod
    def timed(cls, item: str, stage: str, count: int, unit: str, each: float, **more: Any) -> Cost:
        """The cost of ``count`` items of which one took ``each`` seconds."""
        return cls(item, stage, count * each, count * each, count * each, count, unit, **more)


def _parts(encoder: Encoder, section: VisionSection | TextSection) -> list[Encoder]:
    """The encoders that have a store of their own."""
    fused = isinstance(encoder, FusedEncoder) and section.fuse
    return encoder.parts if fused and isinstance(encoder, FusedEncoder) else [encoder]


@dataclass(frozen=True)
class Rates:
    """The rate of each encoder, of text encoders for each caption column."""

    images: list[tuple[Encoder, Rate]]
    texts: dict[str, list[tuple[Encoder, Rate]]]

    @classmethod
    def measure(cls, train: Split, vision: Encoder, text: Encoder, plan: Recipe) -> Rates:
        """Encode the items drawn from the training split.

        Raises:
            DataError: not one of its images can be decoded.
        """
        return cls(
            [
                (part, image_rate(part, train.images.drawn, plan.vision.dtype))
                for part in _parts(vision, plan.vision)
            ],
            {
                column: [
                    (part, text_rate(part, _contents(counted))) for part in _parts(text, plan.text)
                ]
                for column, counted in train.captions.items()
            },
        )

    def as_dicts(self) -> list[dict[str, Any]]:
        """JSON-ready; ``column`` is ``None`` where images are encoded."""
        return [
            {"encoder": encoder.info.id, "column": column, **asdict(rate)}
            for column, measured in [(None, self.images), *self.texts.items()]
            for encoder, rate in measured
        ]


def _contents(counted: Counted) -> list[str]:
    return [str(item.content) for item in counted.drawn]


def split_costs(splits: Mapping[str, Split], rates: Rates, plan: Recipe) -> Iterator[Cost]:
    """Images and captions of every split, with each encoder that has a store of its own."""
    for name, split in splits.items():
        for encoder, rate in rates.images:
            size = _store_bytes(split.images, encoder, plan.vision.dtype)
            yield _encoding(f"{name} images", "image", split.images, encoder, rate, size)
        for column, counted in split.captions.items():
            what = f"{name} captions" if len(split.captions) == 1 else f"{name} {column}"
            for encoder, rate in rates.texts[column]:
                size = _store_bytes(counted, encoder, plan.text.dtype)
                yield _encoding(what, "caption", counted, encoder, rate, size)


def _encoding(
    what: str, unit: str, counted: Counted, encoder: Encoder, rate: Rate, size: int
) -> Cost:
    count = len(counted.ids)
    if isinstance(encoder, TokenEncoder):  # which runs no network
        return Cost.of(f"tokenise {what}", "encode", count, unit, rate, bytes=size)
    return Cost.of(
        f"encode {what}", "encode", count, unit, rate, bytes=size, encoder=encoder.info.id
    )


def _store_bytes(counted: Counted, encoder: Encoder, dtype: FeatureDtype) -> int:
    dtype = "float32" if isinstance(encoder, TokenEncoder) else dtype
    return len(counted.ids) * encoder.info.dim * np.dtype(dtype).itemsize + counted.id_bytes


def fused_costs(
    splits: Mapping[str, Split], vision: Encoder, text: Encoder, plan: Recipe
) -> Iterator[Cost]:
    """The disk that fused features take beside their parts; the time is that of a copy."""
    for name, split in splits.items():
        sides: list[tuple[Encoder, VisionSection | TextSection, Counted]] = [
            (vision, plan.vision, split.images),
            *((text, plan.text, counted) for counted in split.captions.values()),
        ]
        for encoder, section, counted in sides:
            if len(_parts(encoder, section)) > 1:
                size = _store_bytes(counted, encoder, section.dtype)
                item = f"fuse {name} {encoder.info.modality} features"
                yield Cost.timed(item, "encode", len(counted.ids), "row", 0.0, bytes=size)


def class_costs(rates: Rates, plan: Recipe) -> Iterator[Cost]:
    """Zero-shot classification: images of the class folder, and prompts of its classes."""
    if plan.evaluate.classification is None:
        return
    folder = ImageFolder(plan.data.root / plan.evaluate.classification)
    images = count_items(folder, "image")
    for encoder, rate in rates.images:
        size = _store_bytes(images, encoder, plan.vision.dtype)
        yield Cost.of("encode class images", "evaluate", len(images.ids), "image", rate,
                      bytes=size, encoder=encoder.info.id)  # fmt: skip
    prompts = len(folder.classes) * len(TEMPLATES)
    for encoder, rate in next(iter(rates.texts.values())):
        yield Cost.of("encode class prompts", "evaluate", prompts, "prompt", rate,
                      encoder=encoder.info.id)  # fmt: skip


def tower_costs(
    pairs: Mapping[str, Pairs], tower: TextEncoder, train: Split, plan: Recipe
) -> Iterator[Cost]:
    """Captions that are encoded after training, with the trained encoder."""
    column = next(iter(train.captions))
    rate = text_rate(tower, _contents(train.captions[column]))
    for name, split in pairs.items():
        count = len(split.texts[0].rows)
        size = count * tower.info.dim * np.dtype(plan.text.dtype).itemsize
        yield Cost.of(f"encode {name} captions", "evaluate", count, "caption", rate,
                      bytes=size, encoder=tower.info.id)  # fmt: skip
