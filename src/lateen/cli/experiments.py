"""Commands for experiments of many trainings: ``ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lateen.cli.output import say, show_json, show_table
from lateen.cli.overrides import Overrides, parse_overrides
from lateen.errors import UsageError


def ablate(
    ladder: Path,
    /,
    *overrides: Overrides,
    out: Annotated[Path, Parameter(help="folder of the ladder")],
    seeds: Annotated[str | None, Parameter(help="such as 0,1,2, instead of the ladder's")] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Train every rung of an ablation ladder with every seed, and hold it beside the paper.

    The features are encoded once; what is done, by content, is skipped. Any key of the base recipe
    can be overridden, such as `--data.root DIR --vision.encoder NAME`; what a rung sets stands
    above it. OUT gets ladder.json (every run), ladder.csv, ladder.png and report.html.

    Parameters
    ----------
    ladder
        YAML file: a base recipe, seeds, and rungs that change a few keys each (see
        recipes/ablation-flickr8k.yaml).
    """
    from lateen.experiment import ablate as ablate_ladder
    from lateen.experiment import against_the_paper, ladder_tables

    given = None if seeds is None else _seeds(seeds)
    results = ablate_ladder(ladder, out, overrides=parse_overrides(overrides), seeds=given)
    if json:
        show_json(results)
        return
    show_table(*ladder_tables(results))
    for sentence in against_the_paper(results):
        say(sentence)
    say(f"runs    {out / 'ladder.json'}")
    say(f"plot    {out / 'ladder.png'}")
    say(f"report  {out / 'report.html'}")


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--seeds cannot be {text!r}", "Give whole numbers, as in --seeds 0,1,2."
        ) from error
