"""Commands for whole experiments: ``init``, ``run``, ``ablate``, ``keys``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lateen.cli.keys import read_seeds, takes_keys
from lateen.cli.output import (
    FiguresFolder,
    TableFormat,
    markup_of,
    process_leads,
    say,
    show_json,
    show_markup,
    show_table,
)
from lateen.config import RECIPE_FILE, assigned, find_recipe
from lateen.errors import UsageError
from lateen.experiment.recipe import Recipe, keys, ladder_keys

_MOST_LINES = 8  # of one kind, that init says


def init_command(
    folder: Annotated[
        Path, Parameter(help="with images and their captions, in any form that `lateen run` reads")
    ] = Path(),
    /,
    *,
    vision_encoder: Annotated[
        str | None, Parameter(name="--vision.encoder", help="folder, hub id or module:factory")
    ] = None,
    text_encoder: Annotated[
        str | None, Parameter(name="--text.encoder", help="folder, hub id or module:factory")
    ] = None,
    force: Annotated[bool, Parameter(help="write over a recipe that is there")] = False,
    list: Annotated[
        bool, Parameter(help="list the recipes that come with lateen, and write nothing")
    ] = False,
) -> None:
    """Write a recipe for the images and captions in a folder, FOLDER/lateen.yaml.

    It says what was taken, what was guessed and what is left out. `lateen run FOLDER` takes it.
    """
    if list:
        from lateen.config import shipped_recipes
        from lateen.report.tables import Column, TableData

        columns = [Column("recipe", whole=True), Column("of", whole=True), Column("what it is")]
        of = {
            "recipe": "run", "ladder": "ablate", "assessment": "assess", "tuning": "tune",
            "multimodal": "mllm train",
        }  # fmt: skip
        rows = [[name, of[each.kind], each.summary] for name, each in shipped_recipes().items()]
        show_table(TableData("Recipes that come with lateen", columns, rows))
        return
    from lateen.experiment.proposal import propose, refuse_recipe, write_proposal

    refuse_recipe(folder, overwrite=force)
    proposal = propose(folder, vision=vision_encoder, text=text_encoder)
    path = write_proposal(proposal, folder, overwrite=force)
    for head, lines in (
        ("took", proposal.took), ("guessed", proposal.guessed), ("left out", proposal.left_out),
    ):  # fmt: skip
        for line in lines[:_MOST_LINES]:
            say(f"{head:<10}{line}")
        if len(lines) > _MOST_LINES:
            say(f"{head:<10}and {len(lines) - _MOST_LINES} more")
    say(f"recipe    {path}")
    say(f"next      lateen run{'' if folder == Path() else ' ' + shlex.quote(str(folder))}")


@takes_keys(keys().values())
def run_command(
    recipe: Annotated[
        Path | None,
        Parameter(help="YAML file, folder with a lateen.yaml (this one), or name of a recipe that "
                  "comes with lateen: `lateen init --list`"),
    ] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="folder of the run (runs/NAME)")] = None,
    images: Annotated[
        str | None, Parameter(help="instead of a recipe: folder of the images, with --captions; or "
                              "a source that has both")
    ] = None,
    captions: Annotated[
        str | None, Parameter(help="instead of a recipe: table or JSON file of their captions")
    ] = None,
    format: TableFormat = None,
    figures: FiguresFolder = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:  # fmt: skip
    """Encode, train and evaluate as a recipe says: one command from images to a model.

    Every key of the recipe is an option, which stands above the file: `--data.root DIR
    --vision.encoder NAME --train.lr 1e-3`. Without a recipe, `--images DIR --captions FILE` say
    what to train on. All that is named is opened before anything is encoded. Stages that are done,
    by content, are skipped. The model is in OUT/model, numbers in OUT/results.json, a page in
    OUT/report.html.
    """
    markup = markup_of(format, json=json)
    plan, name = _recipe_and_name(recipe, images, captions, overrides)
    out = Path("runs", name) if out is None else out
    from lateen.experiment.preflight import check_run

    checked = check_run(plan, out)  # before torch is loaded
    from lateen.experiment import result_tables, run, run_figures, write_run_page
    from lateen.report import save_figures

    result = run(checked, out)
    if not process_leads():
        return
    page = write_run_page(result)
    if figures is not None:
        save_figures(run_figures(result), figures)
    if json:
        show_json(result.results)
        return
    if markup:
        show_markup(markup, *result_tables(result.results))
        return
    show_table(*result_tables(result.results))
    for store, count in result.skipped.items():
        say(f"skipped  {count}: {store / 'skipped.jsonl'}")
    say(f"model    {result.out / 'model'}")
    say(f"results  {result.out / 'results.json'}")
    say(f"report   {page}")
    if figures is not None:
        say(f"figures  {figures}")


def _recipe_and_name(
    recipe: Path | None, images: str | None, captions: str | None, overrides: Mapping[str, str]
) -> tuple[Recipe, str]:
    """The recipe that a run is asked for, and what to call the run.

    Raises:
        UsageError: there is none, or there are two.
    """
    source = captions or images
    if recipe is not None and source is not None:
        option = "--images" if captions is None else "--captions"
        raise UsageError(
            f"{option} belongs to a run without a recipe, and {recipe} is one",
            "Give a recipe (its keys are --data.images and --data.train), or images and captions.",
        )
    if source is None and "data.train" in overrides and recipe is None:
        source = overrides["data.train"]
    if source is not None:
        given = {"train": source, **({"images": images} if captions and images else {})}
        values = assigned({"data": given}, overrides, keys())
        return Recipe.build(values), Path(source.partition("#")[0]).stem.strip(".{}") or "run"
    if recipe is None and not Path(RECIPE_FILE).is_file():
        raise UsageError(
            "there is nothing to run",
            f"Give a RECIPE, --images DIR --captions FILE, or stand in a folder that has a "
            f"{RECIPE_FILE}, as `lateen init` writes it.",
        )
    file = find_recipe(recipe or Path(RECIPE_FILE))
    name = file.resolve().parent.name if file.name == RECIPE_FILE else file.stem
    return Recipe.load(file, overrides), name


def keys_command() -> None:
    """List every recipe key with its values, its default and its meaning."""
    from lateen.report.tables import Column, TableData

    columns = [Column("key", whole=True), Column("default"), Column("meaning")]
    rows = [[key.path, key.default, f"{key.meaning}: {key.kind}"] for key in keys().values()]
    show_table(TableData("Recipe keys", columns, rows))


@takes_keys(ladder_keys().values())
def ablate_command(
    ladder: Annotated[
        Path, Parameter(help="YAML file: a base recipe, seeds, and rungs that change a few keys "
                        "each; or the name of one that comes with lateen: ablation-flickr8k")
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="folder of the ladder")],
    seeds: Annotated[str | None, Parameter(help="such as 0,1,2, instead of the ladder's")] = None,
    format: TableFormat = None,
    figures: FiguresFolder = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:  # fmt: skip
    """Train every rung of an ablation ladder with every seed, and hold it beside the paper.

    The features are encoded once; what is done, by content, is skipped. Every key of the base
    recipe is an option, such as `--data.root DIR --vision.encoder NAME`; what a rung sets stands
    above it. OUT gets ladder.json (every run), ladder.csv, ladder.png and report.html.
    """
    from lateen.experiment.rungs import Ladder, check_ladder

    markup = markup_of(format, json=json)
    given = None if seeds is None else read_seeds(seeds)
    checked = check_ladder(Ladder.load(ladder, overrides, given), out)  # before torch is loaded
    from lateen.experiment import ablate, ladder_figure, ladder_sentences, ladder_tables
    from lateen.report import save_figures

    results = ablate(checked, out)
    if figures is not None:
        save_figures({"ladder": ladder_figure(results)}, figures)
    if json:
        show_json(results)
        return
    if markup:
        show_markup(markup, *ladder_tables(results))
        return
    show_table(*ladder_tables(results))
    for sentence in ladder_sentences(results):
        say(sentence)
    say(f"runs    {out / 'ladder.json'}")
    say(f"plot    {out / 'ladder.png'}")
    say(f"report  {out / 'report.html'}")
    if figures is not None:
        say(f"figures {figures}")
