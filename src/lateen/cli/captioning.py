"""The command that has a vision-language model caption images: ``caption``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lateen.cli.checks import check_captioner, check_counts, check_inputs
from lateen.cli.costs import duration, size
from lateen.cli.keys import takes_hardware
from lateen.cli.output import say, show_json
from lateen.errors import Faults, UsageError

_SHOWN = 160  # characters of a caption of a plan


@takes_hardware("device")
def caption_command(
    source: str,
    /,
    *,
    model: Annotated[
        str, Parameter(help="openai+http://HOST/v1#MODEL (its key in OPENAI_API_KEY); or folder or "
                       "hub id of a multimodal language model, which runs here")
    ],
    out: Annotated[Path, Parameter(help="Parquet file of the captions; what is not yet in it lies "
                                        "beside it, in OUT.parts")],
    prompt: Annotated[
        str | None, Parameter(help="what is asked of each image (a detailed paragraph)")
    ] = None,
    system: Annotated[str | None, Parameter(help="what the model is told of its task")] = None,
    column: Annotated[str, Parameter(help="of the captions in OUT")] = "vlm_caption",
    images: Annotated[
        Path | None, Parameter(help="folder of the images of a table or JSON file")
    ] = None,
    image_column: Annotated[str | None, Parameter(help="image column (guessed)")] = None,
    split: Annotated[str | None, Parameter(help="split of a dataset that has splits")] = None,
    max_side: Annotated[
        int, Parameter(help="pixels of an image's longer side as it is shown (JPEG, quality 90)")
    ] = 1024,
    max_tokens: Annotated[
        int, Parameter(help="of a caption at most; one that is cut is kept, and counted")
    ] = 256,
    temperature: Annotated[
        float, Parameter(help="0: the likeliest token each time (servers)")
    ] = 0.0,
    seed: Annotated[int | None, Parameter(help="of chance, above temperature 0 (servers)")] = None,
    at_once: Annotated[int, Parameter(help="requests in flight (servers)")] = 8,
    timeout: Annotated[
        float, Parameter(help="seconds for an answer, which is asked for again (servers)")
    ] = 120.0,
    retry_skipped: Annotated[
        bool, Parameter(help="ask once more where the answer was empty or refused")
    ] = False,
    overwrite: Annotated[
        bool, Parameter(help="replace captions asked for otherwise, or whose images are gone")
    ] = False,
    plan: Annotated[
        bool, Parameter(help="ask about a few images alone, keep these, and predict tokens, "
                             "dollars and time of all", negative="")
    ] = False,
    samples: Annotated[int | None, Parameter(help="images to ask about (--plan; 3)")] = None,
    price_in: Annotated[
        float | None, Parameter(help="dollars of a million tokens sent (--plan)")
    ] = None,
    price_out: Annotated[
        float | None, Parameter(help="dollars of a million tokens that come (--plan)")
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:  # fmt: skip
    """Caption images with a vision-language model, into a caption column by id.

    Each answer is on disk as it comes: the same command goes on where it was killed, and asks about
    new images alone where SOURCE has grown. What cannot be read, is refused or empty has a row with
    its reason. `lateen encode OUT` makes a text store of it, which `lateen train --texts` takes
    beside that of other captions.

    Parameters
    ----------
    source
        Folder of images, class folder, caption file (CSV, TSV, JSONL, Parquet, COCO JSON),
        WebDataset shards, or the name of a Hugging Face dataset.
    """
    of_plan = {"--samples": samples, "--price-in": price_in, "--price-out": price_out}
    if given := [name for name, value in of_plan.items() if value is not None and not plan]:
        raise UsageError(f"{given[0]} is of --plan", "Give both.")
    check_counts({"--samples": samples, "--at-once": at_once, "--max-tokens": max_tokens})
    if not timeout > 0:
        raise UsageError(f"--timeout is {timeout:g}", "It must be above 0.")
    faults = Faults()
    check_captioner(faults, model)
    check_inputs(faults, sources=(source,), folders=(images,), out=out.parent)
    from lateen.mllm.captioner import CAPTION_REQUEST, Asked

    prompt = CAPTION_REQUEST if prompt is None else prompt
    if plan:
        from lateen.mllm import plan_captions

        asked = Asked(prompt, system, max_side, max_tokens, temperature, seed)
        predicted = plan_captions(
            source, model, out, asked=asked, column=column, images=images,
            image_column=image_column, split=split, at_once=at_once, timeout=timeout,
            overwrite=overwrite, samples=samples or 3, price_in=price_in, price_out=price_out,
        )  # fmt: skip
        show_json(predicted) if json else _say_plan(predicted)
        return
    from lateen.mllm import caption

    summary = caption(
        source, model, out, prompt=prompt, system=system, column=column, images=images,
        image_column=image_column, split=split, max_side=max_side, max_tokens=max_tokens,
        temperature=temperature, seed=seed, at_once=at_once, timeout=timeout,
        retry_skipped=retry_skipped, overwrite=overwrite,
    )  # fmt: skip
    show_json(summary) if json else _say_made(summary)


def _say_made(summary: Mapping[str, Any]) -> None:
    tokens = summary["tokens"]
    say(f"captions  {summary['captions']:,} of {summary['images']:,} images, in the column "
        f"{summary['column']}")  # fmt: skip
    for reason, count in summary["skipped"].items():
        say(f"  without {count:,} × {reason}")
    if summary["cut"]:
        say(f"  cut     {summary['cut']:,} by the limit of tokens (finish: length)")
    if summary["asked"]:
        say(f"asked     {summary['asked']:,} images in {duration(summary['seconds'])} "
            f"({summary['before']:,} before); tokens: {tokens['prompt']:,} given, "
            f"{tokens['answer']:,} came")  # fmt: skip
    else:
        say("asked     nothing: all was there")
    say(f"file      {summary['out']}")


def _say_plan(plan: Mapping[str, Any]) -> None:
    for each in plan["sample"]:
        text = each["caption"] or f"[{each['finish']}: {each['reason']}]"
        say(f"sample    {each['id']} ({each['seconds']:.1f} s): "
            f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}")  # fmt: skip
    say(f"images    {plan['images']:,}: {plan['there']:,} have an answer, {plan['left_out']:,} "
        f"cannot be read, {plan['to_ask']:,} to ask about, a request each")  # fmt: skip
    if not plan["sample"]:
        return
    if plan["sent_bytes"]:
        say(f"sent      {size(plan['sent_bytes'])} of images")
    tokens = plan["tokens"]
    if tokens is None:
        say("tokens    the server does not tell them")
    else:
        say(f"tokens    {tokens['prompt']:,} given (the images' own among them), "
            f"{tokens['answer']:,} come, by the mean of {len(plan['sample'])}")  # fmt: skip
    if plan["dollars"] is not None:
        say(f"price     {plan['dollars']:,.2f} $")
    say(f"time      {duration(plan['seconds'])}, if {plan['at_once']} at once take as long each as "
        "these did")  # fmt: skip
    say(f"kept      the {len(plan['sample'])} of the sample, beside {plan['out']}")
