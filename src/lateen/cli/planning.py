"""The command that looks before a run: ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from lateen.cli.cluster_costs import cluster_sentences, cluster_table, read_numbers
from lateen.cli.costs import cost_table, duration, size, undecoded, warnings
from lateen.cli.keys import takes_keys
from lateen.cli.output import say, show_json, show_table
from lateen.errors import Faults, UsageError
from lateen.experiment.recipe import Recipe, keys

if TYPE_CHECKING:
    from lateen.experiment.planning import StatedData

_CLUSTER = Group("On a cluster")
_STATED = Group("Data that are not here")


@takes_keys(keys().values())
def plan_command(
    recipe: Annotated[Path, Parameter(help="YAML file of `lateen run`")],
    /,
    *,
    samples: Annotated[
        int | None,
        Parameter(help="images to time each vision encoder on (three batches for each core)"),
    ] = None,
    gpu_images_per_second: Annotated[
        float | None, Parameter(help="rate of the vision encoder on a GPU, to state GPU-hours")
    ] = None,
    gpu_texts_per_second: Annotated[
        str | None, Parameter(help="rate of the text encoder on that GPU; with --image-count "
                              "perhaps one for each caption column, with commas: 170,25")
    ] = None,
    text_price: Annotated[
        float | None,
        Parameter(help="dollars of a million tokens, of a text encoder behind a server"),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder the run will write to: its free disk counts")
    ] = None,
    gpus: Annotated[
        int | None, Parameter(group=_CLUSTER, help="that encode at once, a process each")
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, Parameter(group=_CLUSTER, help="dollars of an hour of one (none are stated)")
    ] = None,
    hours_to_failure: Annotated[
        float | None, Parameter(group=_CLUSTER, help="hours until one fails or is taken away, on "
                                "average (none fails)")
    ] = None,
    restart_minutes: Annotated[
        float | None, Parameter(group=_CLUSTER, help="minutes from a failure until it encodes "
                                "again: a machine, the encoder, the look through the data; and of "
                                "the first start (10)")
    ] = None,
    on: Annotated[
        Literal["array", "ray"] | None,
        Parameter(group=_CLUSTER, help="array: jobs of `lateen encode --slice`, one a GPU; ray: "
                  "four slices a GPU, a free one takes the next (array)"),
    ] = None,
    training_hours: Annotated[
        float | None, Parameter(group=_CLUSTER, help="hours of training on one GPU (as timed here; "
                                "with --image-count left out)")
    ] = None,
    image_count: Annotated[
        int | None, Parameter(group=_STATED, help="images; then no data are looked at and no "
                              "encoder is loaded, and both rates must be given")
    ] = None,
    captions_per_image: Annotated[
        str | None, Parameter(group=_STATED, help="of each caption column, with commas, or one "
                              "for all (1)")
    ] = None,
    image_dim: Annotated[int | None, Parameter(group=_STATED, help="values of a feature")] = None,
    text_dim: Annotated[int | None, Parameter(group=_STATED, help="values of a feature")] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:  # fmt: skip
    """Predict what running a recipe costs on this machine, or on a cluster: time, disk and memory.

    Each encoder is timed on a few of the recipe's own images and captions and the heads on a few
    steps; the rest is counted. Every key of the recipe is an option, as for `lateen run`. Nothing
    is written, and what an earlier run has done is not looked at. With --gpus it says, too, what
    encoding and training take on a cluster, in time, GPU-hours, money and failures; with
    --image-count that alone, from numbers that you state.
    """
    checked = Recipe.load(recipe, overrides)
    texts_per_second = read_numbers(gpu_texts_per_second, "--gpu-texts-per-second")
    captions = read_numbers(captions_per_image, "--captions-per-image")
    _check_alone("--gpus", gpus, {
        "--price-per-gpu-hour": price_per_gpu_hour, "--hours-to-failure": hours_to_failure,
        "--restart-minutes": restart_minutes, "--on": on, "--training-hours": training_hours,
        "--image-count": image_count,
    })  # fmt: skip
    _check_alone("--image-count", image_count, {
        "--image-dim": image_dim, "--text-dim": text_dim, "--captions-per-image": captions_per_image
    })  # fmt: skip
    if image_count is None:
        _check_here(checked, texts_per_second)
    elif samples is not None or out is not None:
        given = "--out" if samples is None else "--samples"
        raise UsageError(f"{given} is of this machine, and with --image-count nothing is done here",
                         f"Leave {given} out.")  # fmt: skip
    from lateen.experiment.planning import ClusterTerms, plan, plan_cluster

    restart = 10.0 if restart_minutes is None else restart_minutes
    terms: ClusterTerms | None = None
    if gpus is not None:
        terms = ClusterTerms(gpus, price_per_gpu_hour, hours_to_failure, restart, on or "array")
    data: StatedData | dict[str, Any]
    result: dict[str, Any] = {"task": "plan"}
    if image_count is not None:
        data = _stated(image_count, image_dim, text_dim, captions)
    else:
        data = result = plan(
            checked, samples=samples, out=out, gpu_images_per_second=gpu_images_per_second,
            gpu_texts_per_second=next(iter(texts_per_second), None), text_price=text_price,
        )  # fmt: skip
    if terms is not None:
        cluster = plan_cluster(
            checked, terms, data, images_per_second=gpu_images_per_second,
            texts_per_second=texts_per_second, training_hours=training_hours,
        )  # fmt: skip
        result = {**result, "cluster": cluster, "recipe": checked.model_dump(mode="json")}
    if json:
        show_json(result)
        return
    if image_count is None:
        show_table(cost_table(result, "What this recipe costs here"))
        for sentence in _sentences(result):
            say(sentence)
    if terms is not None:
        show_table(cluster_table(cluster))
        for sentence in cluster_sentences(cluster):
            say(sentence)


def _check_alone(option: str, given: object, others: Mapping[str, object]) -> None:
    """See that no option is given that only another gives a meaning.

    Raises:
        UsageError: one is.
    """
    if given is None:
        for name, value in others.items():
            if value is not None:
                raise UsageError(f"{name} goes with {option}", f"Give {option}, too, or leave it.")


def _check_here(recipe: Recipe, texts_per_second: tuple[float, ...]) -> None:
    """See that a recipe's data are there, and that captions have one rate.

    Raises:
        LateenError: what is wrong with them.
    """
    from lateen.experiment.preflight import check_sources

    if len(texts_per_second) > 1:
        raise UsageError(
            f"--gpu-texts-per-second has {len(texts_per_second)} numbers",
            "Give one, or state the data, too (--image-count).",
        )
    faults = Faults()
    check_sources(recipe.data, faults)
    faults.raise_all()


def _stated(
    images: int, image_dim: int | None, text_dim: int | None, captions: tuple[float, ...]
) -> StatedData:
    """Data that are not here.

    Raises:
        UsageError: a dim is missing, or a number is not above 0.
    """
    from lateen.experiment.planning import StatedData

    if image_dim is None or text_dim is None:
        which = "--image-dim" if image_dim is None else "--text-dim"
        raise UsageError(f"{which} is not given", "Say how many values a feature has.")
    return StatedData(images, image_dim, text_dim, captions or (1.0,))


def _sentences(result: Mapping[str, Any]) -> list[str]:
    largest, total = result["largest"], result["seconds"]["total"]
    memory, disk, hours = result["memory"], result["disk"], result["gpu_hours"]
    lines = [
        f"largest  {largest['item']}, {duration(largest['seconds'])} of {duration(total)}",
        f"memory   at least {size(memory['encoding'])} in encoding, {size(memory['training'])} in "
        f"training (peaks measured here; features held: {size(memory['features_held'])})",
        f"disk     {size(disk['total'])} of {size(disk['free'])} that are free in {disk['place']}",
    ]
    if "gpu" in memory:
        lines.append(f"GPU      {size(memory['gpu'])} of its memory")
    if hours is not None:
        known = ", ".join(f"{name} {hours[name]:.3g}" for name in hours if name != "total")
        lines.append(f"at the rates given, encoding takes {hours['total']:.3g} GPU-hours ({known})")
    if sent := result["sent"]:
        price = "" if sent["dollars"] is None else f", {sent['dollars']:,.2f} $"
        lines.append(
            f"sent     {sent['texts']:,} texts of {sent['characters']:,} characters to a server, "
            f"in about {sent['requests']:,} requests; by estimate {sent['tokens']:,} tokens{price}"
        )
    lines += undecoded(result)
    lines += warnings(result)
    lines.append(f"not included: {'; '.join(result['not_included'])}")
    return lines
