"""The command that compares encoders: ``assess``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from lateen.assessment.recipe import AssessmentRecipe, assessment_keys
from lateen.cli.checks import check_inputs
from lateen.cli.keys import takes_keys
from lateen.cli.output import (
    FiguresFolder,
    TableFormat,
    markup_of,
    say,
    show_json,
    show_markup,
    show_table,
    width,
)
from lateen.config import assigned
from lateen.errors import Faults, UsageError
from lateen.hardware import use_hardware


@takes_keys(assessment_keys().values())
def assess_command(
    recipe: Annotated[
        Path | None, Parameter(help="YAML file, or the name of one that comes with lateen: "
                                     "assess-flickr8k")
    ] = None,
    /,
    *,
    out: Annotated[Path, Parameter(help="folder of the assessment")],
    images: Annotated[
        list[Path] | None,
        Parameter(help="instead of a recipe: image stores, a candidate each",
                  consume_multiple=True),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        Parameter(help="with --images: text stores; those of one encoder are caption columns of "
                  "one candidate", consume_multiple=True),
    ] = None,
    labels: Annotated[
        Path | None, Parameter(help="with --images: CSV (id,label) for kNN and linear probe")
    ] = None,
    holdout: Annotated[
        float | None, Parameter(help="with --images: share of images to judge on (0.2)")
    ] = None,
    missing: Annotated[
        Literal["error", "drop"] | None,
        Parameter(help="with --images: ids that only some stores have are an error (unless said), "
                  "or dropped"),
    ] = None,
    limit: Annotated[
        int, Parameter(help="rows to print; all are in leaderboard.csv",
                       validator=validators.Number(gte=1))
    ] = 20,
    format: TableFormat = None,
    figures: FiguresFolder = None,
    json: Annotated[bool, Parameter(help="print the leaderboard as JSON")] = False,
    overrides: dict[str, str],
) -> None:  # fmt: skip
    """Find out which vision and language encoders align, before training on millions of pairs.

    For every pair of candidates: alignment probing (linear heads, mean R@K of both directions with
    an interval over images), CKA, mutual kNN, CKNNA, SVCCA, cycle kNN; for every vision encoder kNN
    and linear-probe accuracy on a labelled set. Features are encoded once, an encoder's layers and
    poolings in one pass; what is done, by content, is skipped.

    A recipe lists the candidates; its keys are options that stand above it: `--data.root DIR
    --sweep grid --probe.train.epochs 40 --measure.k 20`. OUT gets leaderboard.json and .csv,
    assessment.json (with correlations and conditions), plots and report.html.
    """
    markup = markup_of(format, json=json)
    if recipe is not None:
        given = {"--images": images, "--texts": texts, "--labels": labels, "--holdout": holdout,
                 "--missing": missing}  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{option} belongs to an assessment without a recipe, and {recipe} is one",
                    "Give a recipe, or stores.",
                )
        plan = AssessmentRecipe.load(recipe, overrides)
        _check(plan, out)
        from lateen.assessment import assess

        results = assess(plan, out)
    else:
        if not images or not texts:
            raise UsageError(
                "there is nothing to assess",
                "Give a recipe, or --images STORE… and --texts STORE….",
            )
        device = overrides.pop("device", "auto")
        sections = _sections(overrides)
        check_inputs(Faults(), stores=(*images, *texts), sources=(labels,), out=out)
        from lateen.assessment import assess_stores

        with use_hardware(device):
            results = assess_stores(
                images, texts, out, labels=labels, holdout=0.2 if holdout is None else holdout,
                missing=missing or "error", **sections,
            )  # fmt: skip
    from lateen.assessment import assessment_figures, assessment_tables, findings
    from lateen.report import save_figures

    if figures is not None:
        save_figures(assessment_figures(results), figures)
    if json:
        show_json(results["rows"])
        return
    if markup:
        show_markup(markup, *assessment_tables(results, limit))
        return
    show_table(*assessment_tables(results, limit, width()))
    for sentence in findings(results):
        say(sentence)
    say(f"leaderboard  {out / 'leaderboard.json'}")
    say(f"report       {out / 'report.html'}")
    if figures is not None:
        say(f"figures      {figures}")


def _check(plan: AssessmentRecipe, out: Path) -> None:
    """See that data and encoders are there, before torch is loaded."""
    from lateen.experiment.preflight import check_encoders, check_sources
    from lateen.files import check_writable

    faults = Faults()
    with faults.note():
        check_writable(out)
    check_sources(plan.data, faults, ("train", plan.judged_on))
    check_encoders(plan.encoders(), faults)


def _sections(overrides: Mapping[str, str]) -> dict[str, Any]:
    """``probe.train.lr`` and the like as the nested values of the sections probe and measure."""
    for path in overrides:
        if path.split(".")[0] not in ("probe", "measure"):
            raise UsageError(
                f"unknown option --{path}: it is of a recipe, and there is none",
                "Without one, settings are --device, --probe.KEY and --measure.KEY.",
            )
    return assigned({}, overrides, assessment_keys())
