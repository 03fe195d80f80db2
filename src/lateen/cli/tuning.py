"""The command that tunes an image tower: ``tune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lateen.cli.keys import read_seeds, takes_keys
from lateen.cli.output import (
    Markup,
    TableFormat,
    markup_of,
    process_leads,
    say,
    show_json,
    show_markup,
    show_table,
)
from lateen.errors import LateenError, UsageError
from lateen.tuning.config import TuneRecipe


# The model needs no option.
@takes_keys(key for path, key in TuneRecipe.known_keys().items() if path != "model")
def tune_command(
    model: Annotated[
        str | None, Parameter(help="folder or hub id of an AlignedModel, a CLIP or a SigLIP")
    ] = None,
    /,
    *,
    target: Annotated[
        str | None, Parameter(help="the stronger vision encoder: folder, hub id or module:factory")
    ] = None,
    recipe: Annotated[
        Path | None, Parameter(help="YAML file, or the name of one that comes with lateen: "
                                    "tune-flickr8k; what is given here stands above it")
    ] = None,
    ladder: Annotated[
        str | None, Parameter(help="several ways beside each other: kernel, feature, projection, a "
                              "share of the images (25%), settings (tune.weight=3), several joined "
                              "by +; baselines = KUEA's. Such as \"kernel, 25%, tune.weight=3\"")
    ] = None,
    seeds: Annotated[
        str | None, Parameter(help="such as 0,1,2: repeat every variant of the ladder with each")
    ] = None,
    out: Annotated[Path, Parameter(help="folder of the tuning: model, results.json, report.html; "
                                   "of a ladder: a folder per variant, ladder.json, report.html")],
    format: TableFormat = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:  # fmt: skip
    """Tune a CLIP's image tower to a stronger vision encoder, on images alone; texts stay.

    The tower's kernel matrix is pulled to the target's while embeddings are held near their start
    (KUEA). `--eval.captions F.csv --eval.images DIR --eval.classes DIR` measure every checkpoint;
    `--stop.retrieval 0.5` ends it where more points are lost, and keeps the last that held. A
    killed tuning goes on. OUT/model has the form that the model came in. `--ladder baselines` puts
    the paper's baselines and shares of the data into one table.
    """
    markup = markup_of(format, json=json)
    given = {"model": model, "target.encoder": target, **overrides}
    plan = TuneRecipe.above(recipe, {key: value for key, value in given.items() if value})
    if seeds is not None and ladder is None:
        raise UsageError("--seeds belongs to --ladder", "Give one tuning its --tune.seed.")
    from lateen.cli.checks import check_tuning

    check_tuning(plan, out)  # before torch is loaded
    if ladder is not None:
        _ladder(plan, ladder, None if seeds is None else read_seeds(seeds), out, markup, json)
        return
    from lateen.tuning.summary import sentence, tune_tables
    from lateen.tuning.tuner import MODEL, RESULTS, run_tuning

    results = run_tuning(plan, out).results
    if not process_leads():
        return
    if json:
        show_json(results)
        return
    if markup:
        show_markup(markup, *tune_tables(results))
        return
    show_table(*tune_tables(results))
    say(sentence(results["verdict"]))
    say(f"model    {out / MODEL}")
    say(f"results  {out / RESULTS}")
    say(f"report   {out / 'report.html'}")


def _ladder(
    plan: TuneRecipe, ladder: str, seeds: list[int] | None, out: Path, markup: Markup | None,
    json: bool,
) -> None:  # fmt: skip
    """Tune in every way of a ladder, and show them beside each other.

    Raises:
        UsageError: a variant that cannot be, before anything is loaded.
        LateenError: a variant failed, after everything is shown.
    """
    from lateen.tuning.variants import read_variants

    read_variants(ladder, plan, seeds)  # before torch is loaded
    from lateen.tuning.ladder import LADDER, tune_ladder
    from lateen.tuning.ladder_report import CSV, PAGE, failures, ladder_tables

    results = tune_ladder(plan, ladder, out, seeds=seeds)
    if not process_leads():
        return
    if json:
        show_json(results)
    elif markup:
        show_markup(markup, *ladder_tables(results))
    else:
        show_table(*ladder_tables(results))
        say(f"tunings  {out / LADDER}")
        say(f"table    {out / CSV}")
        say(f"report   {out / PAGE}")
    if failed := failures(results):
        name, reason = next(iter(failed.items()))
        total = sum(len(variant["runs"]) for variant in results["variants"])
        raise LateenError(
            f"{len(failed)} of {total} tunings failed, the first {name}: {reason}",
            "The same command tries those again, and finds the others done.",
        )
