"""What a recipe will cost on this machine, before it is run: time, disk and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lateen.data import TEMPLATES, ImageFolder
from lateen.encoders import Encoder, TextEncoder, TokenEncoder
from lateen.experiment.layer_choice import open_layers, outputs_alone
from lateen.experiment.planning.rates import (
    Rates,
    Split,
    count_items,
    count_splits,
    imagined_pairs,
    measure_rates,
    store_bytes,
    stored_parts,
)
from lateen.experiment.planning.sent import count_sent
from lateen.experiment.planning.training import Training, measure_training
from lateen.experiment.preflight import with_absolute_paths
from lateen.experiment.recipe import Recipe
from lateen.experiment.stages import hold_out, load_encoders, training_pairs
from lateen.features import Pairs
from lateen.features.encode import SHARD_ITEMS
from lateen.features.rates import Cost, check_positive, default_samples, sums, text_rate
from lateen.machine import peak_gpu_memory, peak_memory, room, this_machine

_WRITING = 4 + 4 + 2  # bytes of a value while its shard is written: as it came, joined, in float16
_SENT = "what a server is sent besides captions: class prompts, this plan's sample, known sentences"
_LEFT_OUT = ("what is saved by what an earlier run has done", "the page with examples")


def plan(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    samples: int | None = None,
    out: str | Path | None = None,
    gpu_images_per_second: float | None = None,
    gpu_texts_per_second: float | None = None,
    text_price: float | None = None,
) -> dict[str, Any]:
    """Predict what :func:`~lateen.run` of a recipe costs, by doing a little of everything.

    A few images and captions are encoded and a few steps are trained, on this machine and as it is
    loaded now; the rest is counted. Nothing is written but to a temporary folder, and what an
    earlier run has already done is not looked at.

    Args:
        recipe: a Recipe, the path of a YAML file, or its values.
        samples: images to encode with each encoder; by default three rounds of a batch for each
            preparing thread.
        out: where the run would write, whose free disk counts; the current folder if not given.
        gpu_images_per_second: rate of the vision encoder on some GPU, to state GPU-hours.
        gpu_texts_per_second: of the text encoder.
        text_price: dollars of a million tokens, of a text encoder behind a server.

    Returns:
        JSON-ready: ``items`` (item, stage, seconds with ``low`` and ``high``, count, bytes),
        ``seconds`` by stage and in total, ``largest``, ``rates``, ``memory`` and ``disk`` in bytes,
        ``gpu_hours``, ``machine`` and ``not_included``; ``sent``, where the text encoder is behind
        a server (texts, characters, tokens by estimate, requests, dollars). ``memory`` is the peak
        of this process, which includes what it did before.

    Raises:
        RecipeError: the recipe has an unknown key or a value that does not fit.
        UsageError: ``samples`` or a rate that is not above 0.
        DataError: a split without images or captions, or with not one image that can be decoded.
        LateenError: any stage's own errors, as far as they show.
    """
    gpu = {"images": gpu_images_per_second, "texts": gpu_texts_per_second}
    check_positive(
        samples=samples,
        text_price=text_price,
        **{f"gpu_{n}_per_second": rate for n, rate in gpu.items()},
    )
    checked = with_absolute_paths(Recipe.of(recipe))
    with checked.on_hardware():
        result = _predict(outputs_alone(checked), samples, gpu, Path(out or "."), text_price)
    if asked := open_layers(checked):
        result["not_included"].append(
            f"choosing layers ({', '.join(asked)}): outputs stand for what will be chosen, and the "
            "training split's features of all other layers take disk besides"
        )
    return {**result, "recipe": checked.model_dump(mode="json")}


def _predict(
    checked: Recipe, samples: int | None, gpu: Mapping[str, float | None], out: Path,
    text_price: float | None,
) -> dict[str, Any]:  # fmt: skip
    """What :func:`plan` returns."""
    machine = this_machine()

    # Load the encoders. One that is trained has its captions stored as token ids.
    begin = time.perf_counter()
    vision, text = load_encoders(checked)
    loading = Cost.timed("load encoders", "load", 1, "time", time.perf_counter() - begin)
    tower = text if checked.text.train and isinstance(text, TextEncoder) else None
    texts = TokenEncoder(tower) if tower else text

    # Count what there is, and join it as a run would: what cannot be joined shows now.
    splits = count_splits(checked.data, samples or default_samples(), SHARD_ITEMS["text"])
    pairs = imagined_pairs(splits, vision, texts, checked)
    chosen_on = hold_out(checked, pairs)
    train_pairs = training_pairs(pairs.pop("train"), checked.data, checked.train.seed)
    checked = checked.suited_to(train_pairs)

    sent = count_sent(splits, text, text_price)

    # Measure: encoding first, since the memory that it takes is read before training.
    rates = measure_rates(splits["train"], vision, texts, checked)
    peak = peak_memory() + _shard_bytes(splits["train"], vision, texts)
    training = measure_training(train_pairs, pairs, chosen_on, checked, tower)

    # Predict.
    costs = [
        loading, *_encoding_costs(splits, rates, checked),
        *_fusing_costs(splits, vision, texts, checked), *training.costs,
        *(_tower_costs(pairs, tower, splits["train"], checked) if tower else ()),
        *_class_costs(rates, checked),
    ]  # fmt: skip
    return {
        "task": "plan", "machine": machine,
        **sums(costs), "rates": _rates(rates), "memory": _memory(peak, training),
        "disk": _disk(sum(cost.bytes for cost in costs), training, out),
        "gpu_hours": _gpu_hours(costs, gpu), "sent": sent,
        "not_included": [*_LEFT_OUT, *training.unknown, *([_SENT] if sent else ())],
    }  # fmt: skip


def _encoding_costs(splits: Mapping[str, Split], rates: Rates, recipe: Recipe) -> Iterator[Cost]:
    """Images and captions of every split, with each encoder that has a store of its own."""
    for name, split in splits.items():
        captions = "captions" if len(split) == 2 else None
        for column, counted in split.items():
            images = column is None
            what = f"{name} {'images' if images else captions or column}"
            dtype = recipe.vision.dtype if images else recipe.text.dtype
            for encoders, rate in rates[column]:
                encoder = encoders[0]
                tokens = isinstance(encoder, TokenEncoder)  # which runs no network
                yield Cost.of(
                    f"{'tokenise' if tokens else 'encode'} {what}", "encode", len(counted),
                    "image" if images else "caption", rate,
                    bytes=sum(store_bytes(counted, each, dtype) for each in encoders),
                    encoder=None if tokens else encoder.info.id,
                )  # fmt: skip


def _fusing_costs(
    splits: Mapping[str, Split], vision: Encoder, text: Encoder, recipe: Recipe
) -> Iterator[Cost]:
    """The disk that fused features take beside their parts; the time is that of a copy."""
    for name, split in splits.items():
        for column, counted in split.items():
            encoder = vision if column is None else text
            section = recipe.vision if column is None else recipe.text
            if len(stored_parts(encoder, section)) > 1:
                size = store_bytes(counted, encoder, section.dtype)
                item = f"fuse {name} {encoder.info.modality} features"
                yield Cost.timed(item, "encode", len(counted), "row", 0.0, bytes=size)


def _class_costs(rates: Rates, recipe: Recipe) -> Iterator[Cost]:
    """Zero-shot classification: images of the class folder, and prompts of its classes."""
    if recipe.evaluate.classification is None:
        return
    folder = ImageFolder(recipe.data.root / recipe.evaluate.classification)
    images = count_items(folder, "image")
    for encoders, rate in rates[None]:
        yield Cost.of(
            "encode class images", "evaluate", len(images), "image", rate,
            bytes=sum(store_bytes(images, each, recipe.vision.dtype) for each in encoders),
            encoder=encoders[0].info.id,
        )  # fmt: skip
    prompts = len(folder.classes) * len(TEMPLATES)
    first = next(column for column in rates if column is not None)
    for encoders, rate in rates[first]:
        yield Cost.of(
            "encode class prompts", "evaluate", prompts, "prompt", rate,
            encoder=encoders[0].info.id,
        )  # fmt: skip


def _tower_costs(
    pairs: Mapping[str, Pairs], tower: TextEncoder, train: Split, recipe: Recipe
) -> Iterator[Cost]:
    """Captions that are encoded after training, with the trained encoder."""
    first = next(column for column in train if column is not None)
    rate = text_rate(tower, train[first].texts)
    for name, split in pairs.items():
        count = len(split.texts[0].rows)
        size = count * tower.info.dim * np.dtype(recipe.text.dtype).itemsize
        yield Cost.of(
            f"encode {name} captions", "evaluate", count, "caption", rate, bytes=size,
            encoder=tower.info.id,
        )  # fmt: skip


def _rates(rates: Rates) -> list[dict[str, Any]]:
    """JSON-ready; ``column`` is ``None`` where images are encoded."""
    return [
        {"encoder": encoder.info.id, "column": column, **asdict(rate)}
        for column, measured in rates.items()
        for (encoder, *_), rate in measured
    ]


def _shard_bytes(train: Split, vision: Encoder, text: Encoder) -> int:
    """What the shard being filled holds, which the sample is too small to show."""
    captions = max(len(counted) for column, counted in train.items() if column is not None)
    values = (
        min(SHARD_ITEMS["image"], len(train[None])) * vision.info.dim,
        min(SHARD_ITEMS["text"], captions) * text.info.dim,
    )
    return _WRITING * max(values)


def _memory(encoding: int, training: Training) -> dict[str, int]:
    gpu = peak_gpu_memory()
    return {
        "encoding": encoding,
        "training": peak_memory(),
        "features_held": training.features_held,
        "parameters": training.parameters,
        "gradients": training.parameters,
        "optimizer": training.optimizer,
        **({"gpu": gpu} if gpu else {}),
    }


def _disk(features: int, training: Training, out: Path) -> dict[str, Any]:
    """Bytes that a run needs, and that are free where it would write."""
    # The last heads, the best ones and the optimiser; twice, while one file replaces another.
    checkpoints = 2 * (2 * training.parameters + training.optimizer)
    total = features + checkpoints + training.model
    return {
        "features": features, "checkpoints": checkpoints, "model": training.model,
        **room(total, out),
    }  # fmt: skip


def _gpu_hours(costs: Sequence[Cost], rates: Mapping[str, float | None]) -> dict[str, float] | None:
    """Hours that encoding takes at the rates that are known."""
    units = {"images": ("image",), "texts": ("caption", "prompt")}
    hours = {
        name: sum(cost.count for cost in costs if cost.encoder and cost.unit in units[name])
        / rate
        / 3600
        for name, rate in rates.items()
        if rate is not None
    }
    return {**hours, "total": sum(hours.values())} if hours else None
