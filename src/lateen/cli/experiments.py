"""Commands for whole experiments: ``run``, ``ablate``, ``keys``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lateen.cli.keys import takes_keys
from lateen.cli.output import say, show_json, show_table
from lateen.errors import UsageError
from lateen.experiment.recipe import Recipe, keys


@takes_keys(keys().values())
def run_command(
    recipe: Annotated[Path, Parameter(help="YAML file (see recipes/)")],
    /,
    *,
    out: Annotated[Path, Parameter(help="folder of the run")],
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:
    """Encode, train and evaluate as a recipe says: one command from images to a model.

    Every key of the recipe is an option, which stands above the file: `--data.root DIR
    --vision.encoder NAME --train.lr 1e-3`. Stages that are done, by content, are skipped. The model
    is in OUT/model, numbers in OUT/results.json, a page in OUT/report.html.
    """
    from lateen.experiment.preflight import check_run

    checked = check_run(Recipe.load(recipe, overrides), out)  # before torch is loaded
    from lateen.experiment import result_tables, run, write_run_page

    result = run(checked, out)
    page = write_run_page(result)
    if json:
        show_json(result.results)
        return
    show_table(*result_tables(result.results))
    for store, count in result.skipped.items():
        say(f"skipped  {count}: {store / 'skipped.jsonl'}")
    say(f"model    {result.out / 'model'}")
    say(f"results  {result.out / 'results.json'}")
    say(f"report   {page}")


def keys_command() -> None:
    """List every recipe key with its values, its default and its meaning."""
    from lateen.report.tables import Column, TableData

    columns = [Column("key", whole=True), Column("default"), Column("meaning")]
    rows = [[key.path, key.default, f"{key.meaning}: {key.kind}"] for key in keys().values()]
    show_table(TableData("Recipe keys", columns, rows))


@takes_keys(keys().values())
def ablate_command(
    ladder: Annotated[
        Path, Parameter(help="YAML file: a base recipe, seeds, and rungs that change a few keys "
                        "each (see recipes/ablation-flickr8k.yaml)")
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="folder of the ladder")],
    seeds: Annotated[str | None, Parameter(help="such as 0,1,2, instead of the ladder's")] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:  # fmt: skip
    """Train every rung of an ablation ladder with every seed, and hold it beside the paper.

    The features are encoded once; what is done, by content, is skipped. Every key of the base
    recipe is an option, such as `--data.root DIR --vision.encoder NAME`; what a rung sets stands
    above it. OUT gets ladder.json (every run), ladder.csv, ladder.png and report.html.
    """
    from lateen.experiment.rungs import Ladder, check_ladder

    given = None if seeds is None else _seeds(seeds)
    checked = check_ladder(Ladder.load(ladder, overrides, given), out)  # before torch is loaded
    from lateen.experiment import ablate, against_the_paper, ladder_tables

    results = ablate(checked, out)
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
