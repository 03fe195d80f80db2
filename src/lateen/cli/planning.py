"""The command that looks before a run: ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lateen.cli.costs import cost_table, duration, size, undecoded, warnings
from lateen.cli.keys import takes_keys
from lateen.cli.output import say, show_json, show_table
from lateen.errors import Faults
from lateen.experiment.recipe import Recipe, keys


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
        float | None, Parameter(help="rate of the text encoder on that GPU")
    ] = None,
    text_price: Annotated[
        float | None,
        Parameter(help="dollars of a million tokens, of a text encoder behind a server"),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder the run will write to: its free disk counts")
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:
    """Predict what running a recipe costs on this machine: time, disk and memory.

    Each encoder is timed on a few of the recipe's own images and captions and the heads on a few
    steps; the rest is counted. Every key of the recipe is an option, as for `lateen run`. Nothing
    is written, and what an earlier run has done is not looked at.
    """
    checked = Recipe.load(recipe, overrides)
    from lateen.experiment.preflight import check_sources

    faults = Faults()
    check_sources(checked.data, faults)
    faults.raise_all()
    from lateen.experiment.planning import plan

    result = plan(
        checked, samples=samples, out=out,
        gpu_images_per_second=gpu_images_per_second, gpu_texts_per_second=gpu_texts_per_second,
        text_price=text_price,
    )  # fmt: skip
    if json:
        show_json(result)
        return
    show_table(cost_table(result, "What this recipe costs here"))
    for sentence in _sentences(result):
        say(sentence)


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
