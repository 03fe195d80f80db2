"""What a recipe will cost on a cluster whose GPUs fail now and then: time, money and disk.

It goes from what :func:`~lateen.plan` has measured here, or from numbers that are stated, as where
the data are not on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lateen.errors import UsageError
from lateen.experiment.planning.makespan import Work, expect
from lateen.experiment.recipe import Recipe
from lateen.features.encode import SHARD_ITEMS
from lateen.features.on_ray import SLICES_PER_ACTOR
from lateen.features.rates import check_positive

_SHARDS = {"image": SHARD_ITEMS["image"], "caption": SHARD_ITEMS["text"]}
_HELD = {
    "array": "a job of an array for each slice, one slice a GPU, which is paid until that is done",
    "ray": f"{SLICES_PER_ACTOR} slices a GPU, a free one takes the next; all are paid until the "
    "last slice of a store is done",
}
_ALWAYS = (
    "GPUs are equally fast, and fail by chance and on their own",
    "one store after the other, and then training on one GPU",
)
_LEFT_OUT = ("waiting for machines", "merging slices, and their disk where it is no link")


@dataclass(frozen=True)
class ClusterTerms:
    """What is known of a cluster.

    Attributes:
        gpus: that encode at once, a process each.
        price: dollars of an hour of one.
        hours_to_failure: of one, on average; ``None`` if none fails.
        restart_minutes: from a failure until a process encodes again (a machine, the encoder, the
            look through the data), and of the first start.
        on: ``array``, jobs that encode a slice each; ``ray``, actors that take the next slice.

    Raises:
        UsageError: a number that is not above 0, or a restart below 0.
    """

    gpus: int
    price: float | None = None
    hours_to_failure: float | None = None
    restart_minutes: float = 10.0
    on: Literal["array", "ray"] = "array"

    def __post_init__(self) -> None:
        check_positive(
            gpus=self.gpus, price_per_gpu_hour=self.price, hours_to_failure=self.hours_to_failure,
        )  # fmt: skip
        if not 0 <= self.restart_minutes < float("inf"):
            raise UsageError(f"restart_minutes is {self.restart_minutes}", "It must be 0 or above.")


@dataclass(frozen=True)
class StatedData:
    """The size of data that are not here.

    Attributes:
        images: how many.
        image_dim: values of an image's features.
        text_dim: of a caption's.
        captions_per_image: of every caption column of the recipe, in its order; or one for all.

    Raises:
        UsageError: a number that is not above 0.
    """

    images: int
    image_dim: int
    text_dim: int
    captions_per_image: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_positive(images=self.images, image_dim=self.image_dim, text_dim=self.text_dim)
        for each in self.captions_per_image:
            check_positive(captions_per_image=each)


@dataclass(frozen=True)
class _Job:
    """One store to be encoded.

    Attributes:
        item: what is done.
        unit: ``image`` or ``caption``.
        count: of them.
        rate: of them per second, on one GPU.
        bytes: that it adds to the disk.
    """

    item: str
    unit: str
    count: int
    rate: float
    bytes: int


def plan_cluster(
    recipe: Recipe,
    terms: ClusterTerms,
    data: StatedData | Mapping[str, Any],
    *,
    images_per_second: float | None = None,
    texts_per_second: Sequence[float] = (),
    training_hours: float | None = None,
) -> dict[str, Any]:
    """Predict what encoding a recipe's data, and training on it, takes on a cluster.

    Args:
        recipe: says the caption columns, dtypes and checkpoints.
        terms: of the cluster.
        data: how large the data are, or what :func:`~lateen.plan` returned of the recipe.
        images_per_second: of the vision encoder on one GPU. Without it, that of the machine that
            planned.
        texts_per_second: of the text encoder, for every caption column, or one for all.
        training_hours: on one GPU; without it, as planned, or left out where data are stated.

    Returns:
        JSON-ready: ``items`` (item, unit, count, rate, gpus, seconds, gpu_hours, failures,
        lost_gpu_hours, dollars, bytes), their ``total``, ``terms``, and what is ``assumed`` and
        ``not_included``, in sentences.

    Raises:
        UsageError: a rate is missing or not above 0, numbers are not as many as there are caption
            columns, or GPUs fail before anything is on disk.
    """
    check_positive(images_per_second=images_per_second, training_hours=training_hours)
    for rate in texts_per_second:
        check_positive(texts_per_second=rate)
    assumed, left_out = [*_ALWAYS, _HELD[terms.on]], list(_LEFT_OUT)
    if terms.hours_to_failure is None:
        assumed.append("no GPU fails")
    assumed.append(f"a start takes {terms.restart_minutes:g} min, the first as any other")
    if isinstance(data, StatedData):
        jobs = _stated_jobs(recipe, data, images_per_second, texts_per_second)
        disk = sum(job.bytes for job in jobs)
        assumed.append("images, captions, dims and rates are as given, and not looked at")
        left_out += ["validation and test splits, and evaluation", "disk of ids and checkpoints"]
    else:
        jobs = _planned_jobs(data, images_per_second, texts_per_second)
        disk = data["disk"]["total"]
        if images_per_second is None or not texts_per_second:
            assumed.append("rates that are not given are those of this machine")
        if training_hours is None:
            training_hours = (data["seconds"]["train"] + data["seconds"]["evaluate"]) / 3600
            assumed.append("training and evaluation take what they take on this machine")
        left_out += data["not_included"]
    items = [_encoding(job, terms) for job in jobs]
    if training_hours is None:
        left_out.append("training (its hours were not given)")
    else:
        items.append(_training(training_hours, recipe.train.checkpoints, terms))
    idle = [item for item in items[: len(jobs)] if item["gpus"] < terms.gpus]
    assumed += [f"{item['item']}: shards for {item['gpus']} of {terms.gpus} GPUs" for item in idle]
    return {
        "items": items, "total": {**_total(items), "bytes": disk}, "terms": asdict(terms),
        "assumed": assumed, "not_included": left_out,
    }  # fmt: skip


# -- what there is to encode ----------------------------------------------------------------------


def _stated_jobs(
    recipe: Recipe, data: StatedData, images_per_second: float | None,
    texts_per_second: Sequence[float],
) -> list[_Job]:  # fmt: skip
    """The stores of data that are not here.

    Raises:
        UsageError: a rate is missing, or numbers are not as many as the caption columns; or the
            text encoder is trained.
    """
    if recipe.text.train:
        raise UsageError("text.train trains the text encoder, so that its captions are not encoded",
                         "Plan it where the data are.")  # fmt: skip
    if images_per_second is None or not texts_per_second:
        which = "images" if images_per_second is None else "texts"
        raise UsageError(f"gpu_{which}_per_second is not given", "Data that are not here "
                         "cannot be timed: state it.")  # fmt: skip
    columns = recipe.data.captions or ("captions",)
    rates = _by_column(texts_per_second, columns, "gpu_texts_per_second")
    each = _by_column(data.captions_per_image, columns, "captions_per_image")
    size = data.image_dim * np.dtype(recipe.vision.dtype).itemsize
    jobs = [_Job("encode images", "image", data.images, images_per_second, data.images * size)]
    size = data.text_dim * np.dtype(recipe.text.dtype).itemsize
    for column, rate, captions in zip(columns, rates, each, strict=True):
        count = round(data.images * captions)
        jobs.append(_Job(f"encode {column}", "caption", count, rate, count * size))
    return jobs


def _by_column(values: Sequence[float], columns: Sequence[str], name: str) -> list[float]:
    """A number for every caption column.

    Raises:
        UsageError: there are neither as many nor one.
    """
    if len(values) not in (1, len(columns)):
        raise UsageError(
            f"{name} has {len(values)} numbers for {len(columns)} caption columns "
            f"({', '.join(columns)})",
            "Give one for each, in this order, or one for all.",
        )
    return list(values) if len(values) == len(columns) else [values[0]] * len(columns)


def _planned_jobs(
    planned: Mapping[str, Any], images_per_second: float | None, texts_per_second: Sequence[float]
) -> list[_Job]:
    """The stores that a plan of this machine lists; what runs no network is left out.

    Raises:
        UsageError: a rate for each caption column.
    """
    if len(texts_per_second) > 1:
        raise UsageError(
            f"gpu_texts_per_second has {len(texts_per_second)} numbers",
            "Give one for all captions, or state the data (--image-count).",
        )
    rates = {"image": images_per_second, "caption": next(iter(texts_per_second), None)}
    return [
        _Job(item["item"], item["unit"], item["count"],
             rates[item["unit"]] or item["count"] / item["seconds"], item["bytes"])
        for item in planned["items"] if item["stage"] == "encode" and item["encoder"]
    ]  # fmt: skip


# -- what it costs --------------------------------------------------------------------------------


def _encoding(job: _Job, terms: ClusterTerms) -> dict[str, Any]:
    slices = SLICES_PER_ACTOR if terms.on == "ray" else 1
    work = Work.encoding(job.count, job.rate, _SHARDS[job.unit], terms.gpus, slices)
    return _item(
        job.item, work, terms, "Take GPUs that last longer, or restart them faster.",
        unit=job.unit, count=job.count, rate=job.rate, bytes=job.bytes,
    )  # fmt: skip


def _training(hours: float, checkpoints: int, terms: ClusterTerms) -> dict[str, Any]:
    seconds = hours * 3600
    work = Work(seconds, 1, seconds, 1, seconds / checkpoints)
    remedy = f"Raise train.checkpoints ({checkpoints}), or take a GPU that lasts longer."
    return _item("train the heads", work, terms, remedy, unit=None, count=None, rate=None, bytes=0)


def _item(
    item: str, work: Work, terms: ClusterTerms, remedy: str, *, unit: str | None,
    count: int | None, rate: float | None, bytes: int,
) -> dict[str, Any]:  # fmt: skip
    """One line of the plan.

    Raises:
        UsageError: GPUs fail before anything is on disk.
    """
    failure = None if terms.hours_to_failure is None else terms.hours_to_failure * 3600
    restart = terms.restart_minutes * 60
    # Where times to failure are exponential some tries succeed, one in e at best: it would end,
    # after many times the work. Where they are alike, none does.
    if failure is not None and failure <= restart + work.piece:
        raise UsageError(
            f"{item} never finishes: a GPU fails after {failure / 60:.3g} min on average, before a "
            f"restart of {restart / 60:.3g} min and the {work.piece / 60:.2g} min until anything "
            "new is on disk are over",
            remedy,
        )
    outcome = expect(work, failure, restart)
    paid = outcome.busy if terms.on == "array" else outcome.makespan * work.workers
    hours = paid / 3600
    return {
        "item": item, "unit": unit, "count": count, "rate": rate, "gpus": work.workers,
        "seconds": outcome.makespan, "gpu_hours": hours, "failures": outcome.failures,
        "lost_gpu_hours": outcome.lost / 3600,
        "dollars": None if terms.price is None else hours * terms.price, "bytes": bytes,
    }  # fmt: skip


def _total(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = ("seconds", "gpu_hours", "failures", "lost_gpu_hours")
    dollars = [item["dollars"] for item in items]
    return {
        **{name: sum(item[name] for item in items) for name in names},
        "dollars": None if None in dollars else sum(dollars),
    }
