"""Commands that measure models: ``evaluate``, ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lateen.cli.models import TextPlace, VisionPlace
from lateen.cli.output import say, show_json, show_table
from lateen.errors import LateenError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lateen.model import AlignedModel


# Arguments of the command that are no option of a task.
_OWN = ("model", "texts", "labels", "task", "suite", "data_root", "vision_encoder", "text_encoder",
        "json")  # fmt: skip


def evaluate(
    model: Path | None = None,
    /,
    *,
    task: Annotated[
        Literal[
            "retrieval",
            "classification",
            "knn",
            "linear-probe",
            "winoground",
            "caption-choice",
            "mmvp",
            "segmentation",
            "patch-probe",
            "attention",
        ]
        | None,
        Parameter(help="what to measure"),
    ] = None,
    suite: Annotated[
        Literal["paper"] | None,
        Parameter(help="instead of a task: all of a paper's evaluations that --data.root has"),
    ] = None,
    data_root: Annotated[
        Path | None, Parameter(name="--data.root", help="suite: the folder of all its sets")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder for results and pictures (suite, attention: needed)")
    ] = None,
    data: Annotated[
        str | None, Parameter(help="a benchmark in its published layout: folder, file or hub id")
    ] = None,
    images: Annotated[
        str | None, Parameter(help="images: folder, class folder, or any source")
    ] = None,
    captions: Annotated[Path | None, Parameter(help="retrieval: caption file")] = None,
    texts: Annotated[
        Path | None,
        Parameter(help="instead of MODEL: store of ready text embeddings, --images that of images"),
    ] = None,
    labels: Annotated[
        Path | None, Parameter(help="with --texts, classification: CSV (id,label) of the images")
    ] = None,
    masks: Annotated[Path | None, Parameter(help="segmentation, patch-probe: index masks")] = None,
    classes: Annotated[Path | None, Parameter(help="class names, one a line")] = None,
    set_: Annotated[
        str | None,
        Parameter(
            name="--set",
            help="classification: whose names, prompts and metric to use, such "
            "as imagenet, eurosat (see docs/evaluation.md)",
        ),
    ] = None,
    templates: Annotated[
        Path | None, Parameter(help="prompts, one a line, with {} for the class (our own)")
    ] = None,
    column: Annotated[str | None, Parameter(help="caption or label column (the first)")] = None,
    split: Annotated[str | None, Parameter(help="split that is judged")] = None,
    train: Annotated[str | None, Parameter(help="knn, linear-probe: split to learn from")] = None,
    features: Annotated[
        Literal["encoder", "embedding", "both"] | None,
        Parameter(help="knn, linear-probe: of the frozen encoder, or after the head (both)"),
    ] = None,
    k: Annotated[
        list[int] | None,
        Parameter(name="--k", help="knn: neighbours (10 20 100 200)", consume_multiple=True),
    ] = None,
    temperature: Annotated[float | None, Parameter(help="knn: of the votes (0.07)")] = None,
    folds: Annotated[
        int | None, Parameter(help="retrieval: also the mean over this many parts (COCO: 5)")
    ] = None,
    per_image: Annotated[
        int | None, Parameter(help="retrieval: only each image's first captions (COCO, Flickr: 5)")
    ] = None,
    baseline: Annotated[str | None, Parameter(help="mmvp: another model to draw beside")] = None,
    layout: Annotated[
        Literal["auto", "plain", "ade20k", "coco-stuff", "voc20"] | None,
        Parameter(help="segmentation, patch-probe: of --data (auto)"),
    ] = None,
    ignore: Annotated[
        int | None, Parameter(help="index in masks that is not counted (255)")
    ] = None,
    background: Annotated[
        float | None,
        Parameter(help="segmentation: below this probability a pixel is class `background`"),
    ] = None,
    short_side: Annotated[
        int | None, Parameter(help="segmentation: pixels that images are scaled to (448)")
    ] = None,
    window: Annotated[
        int | None, Parameter(help="pixels of the window that the encoder sees (448)")
    ] = None,
    stride: Annotated[
        int | None, Parameter(help="segmentation: pixels between windows (224)")
    ] = None,
    attention: Annotated[
        Literal["qk", "qq", "kk"] | None, Parameter(help="segmentation: of the last block (qk)")
    ] = None,
    residual: Annotated[
        bool | None,
        Parameter(
            help="segmentation: keep the last block's residual (yes)", negative="--no-residual"
        ),
    ] = None,
    layer: Annotated[int | None, Parameter(help="attention: which (-2, the last but one)")] = None,
    heads: Annotated[int | None, Parameter(help="attention: single heads to draw (4)")] = None,
    pictures: Annotated[
        int | None, Parameter(help="how many images to draw (8; attention 16)")
    ] = None,
    holdout: Annotated[
        float | None, Parameter(help="patch-probe: share that is judged (0.2)")
    ] = None,
    seed: Annotated[int | None, Parameter(help="of folds and splits (0)")] = None,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Measure a model, or a plain CLIP or SigLIP: a task, or all of a paper's; in percent.

    Features are cached by content (in $LATEEN_CACHE, ~/.cache/lateen by default), so that a second
    evaluation of the same data costs little. `lateen compare` holds results against each other.

    Parameters
    ----------
    model
        Folder of a model, such as runs/f8k/model; or a CLIP by folder or hub id. Without it,
        --images and --texts are stores of embeddings that are ready.
    """
    given = {name.rstrip("_"): value for name, value in locals().items() if name not in _OWN}
    options = {name: value for name, value in given.items() if value is not None}
    if (task is None) == (suite is None):
        raise UsageError(
            "there must be one of --task and --suite",
            "For example: --task retrieval --captions FILE; or --suite paper --data.root DIR.",
        )
    if model is None:
        _show_ready(task, texts, labels, options, json=json)
        return
    if texts is not None or labels is not None:
        raise UsageError(
            "--texts and --labels are of embeddings that need no model", f"Leave {model} out."
        )
    from lateen.evaluation import evaluate as evaluate_task
    from lateen.model import open_model

    place = {"vision_encoder": vision_encoder, "text_encoder": text_encoder}
    if suite is not None:
        root, folder = _of_suite(data_root, options)
        _run_suite(open_model(model, **place), suite, root, folder, model, json=json)
        return
    if data_root is not None:
        raise UsageError("--data.root belongs to --suite", "A task takes --data or --images.")
    result = evaluate_task(open_model(model, **place), str(task), place=model, **options)
    if json:
        show_json(result)
    else:
        _show(result, out)


def compare(
    *results: Annotated[Path, Parameter(help="result files, or folders of them")],
    labels: Annotated[
        list[str] | None,
        Parameter(help="names of the columns (the folders')", consume_multiple=True),
    ] = None,
    format: Annotated[
        Literal["table", "markdown", "csv"] | None, Parameter(help="what to print (table)")
    ] = None,
    published: Annotated[
        bool, Parameter(help="also published numbers, which are of other models and data")
    ] = False,
    out: Annotated[
        Path | None, Parameter(help="write it to a file instead: .csv, .json or Markdown")
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Hold results of models against each other: a row for each number, a column for each model.

    Results are what `lateen evaluate --out`, `--suite` and `lateen run` wrote. Rows whose data,
    prompts or options are not the same for all models are marked, and have no best.
    """
    if not results:
        raise UsageError(
            "there is nothing to compare", "Give folders of results, such as runs/*/eval."
        )
    if json and format is not None:
        raise UsageError(f"--json and --format {format} are two forms", "Give one of them.")
    from lateen.evaluation.comparison import compare as compare_results
    from lateen.files import write_text

    found = compare_results(results, labels)
    kind = "json" if json else format
    if out is not None:
        by_name = {".csv": "csv", ".json": "json"}.get(out.suffix.lower(), "markdown")
        write_text(out, found.text(by_name if kind in (None, "table") else kind, published))
        say(f"table  {out}")
    elif kind in (None, "table"):
        show_table(found.table(published=published))
    else:
        say(found.text(kind, published).rstrip("\n"))


def _show_ready(
    task: str | None, texts: Path | None, labels: Path | None, options: dict[str, Any], *,
    json: bool,
) -> None:  # fmt: skip
    """Evaluate embeddings that are on disk."""
    if task not in ("retrieval", "classification") or texts is None or "images" not in options:
        raise UsageError(
            "there is no model",
            "Name one; or give --images STORE and --texts STORE of embeddings, with --task "
            "retrieval, or with --task classification and --labels.",
        )
    if (task == "classification") != (labels is not None):
        raise UsageError(f"--task {task} and --labels do not go together",
                         "Labels are what classification needs.")  # fmt: skip
    for name in options.keys() - {"images", "per_image", "folds"}:
        raise UsageError(
            f"--{name.replace('_', '-')} is of a model", "Embeddings that are ready take no such."
        )
    from lateen.evaluation import evaluate_embeddings

    result = evaluate_embeddings(texts=texts, labels=labels, **options)
    if json:
        show_json(result)
    else:
        _show(result, None)


def _of_suite(root: Path | None, options: dict[str, Any]) -> tuple[Path, Path]:
    """The folders of a suite's data and results, which are all that it takes."""
    folder = options.pop("out", None)
    if root is None or folder is None:
        raise UsageError(
            f"--suite needs {'--data.root' if root is None else '--out'}",
            "For example: --suite paper --data.root DIR --out runs/eval.",
        )
    for name in options:
        raise UsageError(
            f"--{name.replace('_', '-')} belongs to --task",
            "A suite takes --data.root and --out: every set is evaluated as published.",
        )
    return root, folder


def _run_suite(
    model: AlignedModel, suite: str, root: Path, out: Path, place: Path, *, json: bool
) -> None:
    from lateen.evaluation.suite import PAGE, SUMMARY, evaluate_suite, suite_tables

    summary, results = evaluate_suite(model, root, out, suite=suite, place=place)
    if json:
        show_json({**summary, "results": results})
        return
    show_table(*suite_tables(summary, results))
    if not results:
        raise LateenError(f"none of the evaluations could be run: see {out / SUMMARY}")
    kept = sum(each["state"] == "kept" for each in summary["evaluations"])
    if kept:
        say(f"{kept} of {len(results)} were done before")
    say(f"results  {out / SUMMARY}")
    say(f"report   {out / PAGE}")


def _show(result: Mapping[str, Any], out: Path | None) -> None:
    from lateen.evaluation.tables import result_tables

    show_table(*result_tables(result))
    if out is not None:
        say(f"results  {out / (result['task'] + '.json')}")
        if result.get("pictures"):
            say(f"pictures {out}")
