"""Commands ``mllm swap`` and ``mllm compare``: another tower, and two models' answers side by
side."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lateen.cli.checks import check_counts, check_inputs, check_mllm, check_tower
from lateen.cli.keys import takes_hardware
from lateen.cli.output import TableFormat, markup_of, say, show_json, show_markup, show_table
from lateen.errors import DataError, Faults, UsageError

if TYPE_CHECKING:
    from lateen.mllm import Swapped
    from lateen.mllm.comparison import SideBySide

_JSON = Annotated[bool, Parameter(help="print JSON")]
_SHOWN = 12  # hex digits of a hash


@takes_hardware("device")
def swap_command(
    model: Path,
    /,
    *,
    tower: Annotated[
        str,
        Parameter(help="that takes the old one's place: folder of a model, such as "
                       "runs/tuned/model; a CLIP or vision encoder by folder or hub id"),
    ],
    out: Annotated[Path, Parameter(help="folder of the new multimodal model")],
    benchmark: Annotated[
        str | None,
        Parameter(help="ask both models its questions (see lateen mllm evaluate --list)"),
    ] = None,
    data: Annotated[
        Path | None,
        Parameter(help="folder of the benchmark's files; of pope-of-captions a dataset with "
                       "captions"),
    ] = None,
    split: Annotated[str | None, Parameter(help="of the benchmark (the usual one)")] = None,
    images: Annotated[
        Path | None, Parameter(help="folder of its images, where it is not below --data")
    ] = None,
    limit: Annotated[
        int | None, Parameter(help="ask so many questions, drawn by lot, and no more")
    ] = None,
    by: Annotated[
        Literal["generation", "first-token"] | None,
        Parameter(help="how answers are found, as for lateen mllm evaluate"),
    ] = None,
    max_tokens: Annotated[
        int | None, Parameter(help="of a generated answer (16; boxes 64, texts 1024)")
    ] = None,
    json: _JSON = False,
) -> None:  # fmt: skip
    """Put another vision tower into a multimodal model, without training.

    The new tower gives the tokens that the old one gave: of the same kind, layer and grid; one that
    cannot is refused. Language model and projector stay as they are, which is proved by the hash of
    their weights, before and as they are read back from OUT. With --benchmark both models are asked
    the same questions: OUT/eval-before, OUT/eval, and a page with the answers of both.

    Parameters
    ----------
    model
        Folder of a multimodal model, trained or not; or the hub id of a LLaVA with a CLIP tower.
    """
    check_counts({"--limit": limit, "--max-tokens": max_tokens})
    asked = {"--data": data, "--split": split, "--images": images, "--limit": limit, "--by": by,
             "--max-tokens": max_tokens}  # fmt: skip
    idle = [name for name, value in asked.items() if value is not None and benchmark is None]
    if idle:
        raise UsageError(f"{idle[0]} is of a benchmark, and there is none", "Name --benchmark.")
    faults = Faults()
    check_mllm(faults, model)
    check_tower(faults, tower)
    check_inputs(faults, sources=[data, images], out=out)
    from lateen.mllm import evaluate_swap, open_questions, swap
    from lateen.mllm.swapping import check_scored

    questions = None
    if benchmark is not None:
        check_scored(questions := open_questions(benchmark, data, images=images, split=split))
    swapped = swap(model, tower, out)
    if not json:
        _say_swapped(swapped, out)
    if questions is None:
        if json:
            show_json({"model": str(out), **swapped.record, "notes": swapped.notes})
        else:
            _say_next(model, tower, out)
        return
    compared = evaluate_swap(
        model, out, questions, limit=limit, max_tokens=max_tokens,
        answered_by="first token" if by == "first-token" else by,
    )  # fmt: skip
    if json:
        show_json({"model": str(out), **swapped.record, "notes": swapped.notes,
                   "compared": compared.as_dict()})  # fmt: skip
        return
    _show_compared(compared, out / "eval")


def compare_command(
    first: Path,
    second: Path,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="folder for the numbers and the page with both answers")
    ] = None,
    data: Annotated[
        Path | None, Parameter(help="what the questions were read from, as for both evaluations")
    ] = None,
    images: Annotated[
        Path | None, Parameter(help="folder of its images, where it is not below --data")
    ] = None,
    benchmark: Annotated[
        str | None, Parameter(help="which, where both have results of several")
    ] = None,
    split: Annotated[str | None, Parameter(help="of it, likewise; or of a dataset")] = None,
    labels: Annotated[
        list[str] | None,
        Parameter(help="what the two are called (their folders)", consume_multiple=True),
    ] = None,
    format: TableFormat = None,
    json: _JSON = False,
) -> None:
    """Hold two models' answers to the same questions against each other, on one page.

    No model is run. Numbers are in pairs, with the interval of their difference; the page has
    photographs and questions with what both answered, first those that only one got right. For
    more than two models, and without photographs, there is `lateen compare`.

    Parameters
    ----------
    first
        What `lateen mllm evaluate --out` wrote for one model.
    second
        The same for the other.
    """
    markup = markup_of(format, json=json)
    faults = Faults()
    for place in (first, second):
        with faults.note():
            if not place.exists():
                raise DataError(
                    f"there is no {place}", "Give what `lateen mllm evaluate --out` wrote."
                )
    check_inputs(faults, sources=[data, images], out=out)
    from lateen.mllm import compare_answers, open_questions
    from lateen.mllm.comparison import shared_results
    from lateen.mllm.comparison_page import comparison_table

    one, two = shared_results(first, second, benchmark, split)
    questions = open_questions(
        one.result["set"], data, images=images, split=split or one.result["split"]
    )
    compared = compare_answers(one.path, two.path, questions, out=out, labels=labels)
    if json:
        show_json(compared.as_dict())
    elif markup:
        show_markup(markup, comparison_table(compared))
    else:
        _show_compared(compared, out)


def _say_swapped(swapped: Swapped, out: Path) -> None:
    entry, tower = swapped.entry, swapped.record["tower"]
    weights, tokens = entry["tower_weights"], entry["tokens"]
    say(f"tower      {_tower(entry['tower'], weights['before'])} → "
        f"{_tower(tower, weights['after'])}: {tower['tokens_per_image']} tokens of "
        f"{tower['width']} values ({tower['tokens']})")  # fmt: skip
    say(f"unchanged  language model {entry['language_model'][:_SHOWN]}, projector "
        f"{entry['projector'][:_SHOWN]} (weights before, and as read back)")  # fmt: skip
    say(f"tokens     cosine with the old ones {tokens['cosine']:.3f}; of another picture's "
        f"{tokens['another_picture']:.3f} ({tokens['pictures']} made-up pictures)")  # fmt: skip
    say(f"model      {out}")


def _tower(record: dict[str, Any], weights: str) -> str:
    return f"{record['encoder']['id']} {weights[:_SHOWN]}"


def _say_next(model: Path, tower: str, out: Path) -> None:
    words = ["lateen", "mllm", "swap", str(model), "--tower", tower, "--out", str(out)]
    say("next       ask both the same questions:")
    say(f"           {shlex.join(words)} --benchmark NAME --data DIR")


def _show_compared(compared: SideBySide, out: Path | None) -> None:
    from lateen.mllm.comparison import compared_stem
    from lateen.mllm.comparison_page import comparison_table, counts_sentence

    show_table(comparison_table(compared))
    say(counts_sentence(compared))
    if out is not None:
        stem = compared_stem(compared.questions)
        say(f"results  {out / stem}.json")
        say(f"page     {out / stem}.html")
