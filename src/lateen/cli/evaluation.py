"""Commands that measure models: ``evaluate`` with a sub-command for each task, and ``compare``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
)

from lateen.cli.checks import check_inputs, check_model
from lateen.cli.keys import takes_hardware
from lateen.cli.models import TextPlace, VisionPlace
from lateen.cli.output import TableFormat, markup_of, say, show_json, show_markup, show_table
from lateen.errors import DataError, Faults, LateenError, UsageError, choices, nearest
from lateen.evaluation.signature import task_signature
from lateen.evaluation.task import RESULT_KINDS, TASKS, task_summaries

_MODEL = "folder of a model, such as runs/f8k/model; or a CLIP or SigLIP by folder or hub id"
_OUT = Annotated[Path | None, Parameter(help="folder for the whole result, a page and pictures")]
_JSON = Annotated[bool, Parameter(help="print JSON")]
_SOURCES = ("captions", "images", "data")  # options of tasks that name something to open
_COMMON = "Of every task"  # the group of options that all tasks share
# Roles and literals of docstrings, and what refers to a document that users do not have.
_RST = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``([^`]*)``|\s*\(METHODS [^)]*\)")

app = App(
    name="evaluate",
    help="Measure a model, or a plain CLIP or SigLIP, on a task or on all of a paper's; in percent."
    "\n\nFeatures are cached by content (in $LATEEN_CACHE, ~/.cache/lateen by default), so that a "
    "second evaluation of the same data costs little. `lateen compare` holds results against each "
    "other. `lateen evaluate MODEL --task TASK ...` is another way to write it.",
    usage="Usage: lateen evaluate TASK MODEL [OPTIONS]",
)


def __getattr__(name: str) -> Callable[..., None]:
    """The command of the task in the module of that name, which is loaded only now."""
    task = name.replace("_", "-")
    if task not in TASKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _task_command(task)


def _task_command(task: str) -> Callable[..., None]:
    """The command of a task: its options are the keyword arguments of the function that runs it."""
    signature = task_signature(task)

    def command(
        model: Path | None = None, /, *, out: Path | None = None, json: bool = False,
        format: str | None = None,
        vision_encoder: str | None = None, text_encoder: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        markup_of(format, json=json)
        if model is None:
            raise UsageError(
                "there is no model",
                "Name one; embeddings that are ready are for `lateen evaluate embeddings`.",
            )
        faults = Faults()
        check_model(faults, model)
        check_inputs(faults, sources=[options.get(name) for name in _SOURCES], out=out)
        from lateen.evaluation.task import evaluate_with
        from lateen.model import open_model

        ready = open_model(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
        result = evaluate_with(ready, task, options, place=model, out=out)
        _show(result, out, json=json, form=format)

    command.__doc__ = _readable(signature.docstring)
    parameters = _parameters(signature.parameters)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return takes_hardware()(command)


def _parameters(own: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """The command's: the model, the task's own options, and those of every task."""
    common: dict[str, tuple[Any, Any]] = {
        "out": (_OUT, None), "format": (TableFormat, None), "json": (_JSON, False),
        "vision_encoder": (VisionPlace, None), "text_encoder": (TextPlace, None),
    }  # fmt: skip
    return [
        inspect.Parameter(
            "model", inspect.Parameter.POSITIONAL_ONLY, default=None,
            annotation=Annotated[Path | None, Parameter(help=_MODEL)],
        ),
        *(_option(p) for p in own if p.name not in common),
        *(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default,
                annotation=Annotated[kind, Parameter(group=_COMMON)],
            )
            for name, (kind, default) in common.items()
        ),
    ]  # fmt: skip


def _option(parameter: inspect.Parameter) -> inspect.Parameter:
    """A keyword argument of a task as an option of its command."""
    kind, default = _word_type(parameter.annotation), parameter.default
    shown = Parameter()
    if default is True:
        shown = Parameter(negative=f"--no-{parameter.name}")
    elif isinstance(default, Sequence) and not isinstance(default, str):
        several = kind in (list[int], list[float])
        text = " ".join(map(str, default)) if several else f"{len(default)} of lateen's own"
        shown = Parameter(show_default=lambda _: text, consume_multiple=several, negative="")
        default, kind = (default, kind) if several else (None, kind | None)
    return parameter.replace(
        kind=inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )


def _word_type(annotation: Any) -> Any:
    """What the words of a command line become: text where text will do, else the first type."""
    options = [annotation]
    if get_origin(annotation) in (Union, UnionType):
        options = [kind for kind in get_args(annotation) if kind is not type(None)]
    kind = str if str in options else options[0]
    if get_origin(kind) is Sequence:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    return kind | None if type(None) in get_args(annotation) else kind


def _readable(docstring: str | None) -> str:
    """A docstring without the marks that are for the pages of an API."""

    def plain(match: re.Match[str]) -> str:
        return f"`{match[2]}`" if match[2] else match[1] or ""

    return _RST.sub(plain, inspect.cleandoc(docstring or ""))


for _name, _summary in task_summaries().items():
    app.command(f"{__name__}:{_name.replace('-', '_')}", name=_name, help=_readable(_summary))


@app.command(name="suite")
@takes_hardware()
def suite_command(
    model: Path,
    /,
    *,
    data_root: Annotated[Path, Parameter(name="--data.root", help="the folder of all its sets")],
    out: Annotated[Path, Parameter(help="folder for results, pictures and a page")],
    suite: Annotated[
        str,
        Parameter(help="which: `sail` and `kuea` are what these papers report, `paper` is both"),
    ] = "paper",
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: _JSON = False,
) -> None:
    """All of a paper's evaluations that a folder has data for, as published, with one page.

    Parameters
    ----------
    model
        Folder of a model, such as runs/f8k/model; or a CLIP by folder or hub id.
    """
    faults = Faults()
    check_model(faults, model)
    check_inputs(faults, folders=[data_root], out=out)
    from lateen.evaluation.suite import SUITES, evaluate_suite
    from lateen.evaluation.suite_page import PAGE, SUMMARY, suite_tables
    from lateen.model import open_model

    if suite not in SUITES:
        raise UsageError(f"there is no suite {suite!r}", choices(suite, SUITES))
    ready = open_model(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
    summary, results = evaluate_suite(ready, data_root, out, suite=suite, place=model)
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


@app.command(name="embeddings")
def embeddings_command(
    *,
    images: Annotated[Path, Parameter(help="store of image embeddings")],
    texts: Annotated[Path, Parameter(help="store of text embeddings in the same space")],
    labels: Annotated[
        Path | None,
        Parameter(help="for zero-shot: CSV (id,label) of the images; texts are classes"),
    ] = None,
    per_image: Annotated[
        int | None, Parameter(help="retrieval: only each image's first captions, so many")
    ] = None,
    folds: Annotated[
        int | None, Parameter(help="retrieval: also the mean over this many parts")
    ] = None,
    json: _JSON = False,
) -> None:
    """Embeddings that are ready, without a model: retrieval, or zero-shot classification."""
    check_inputs(Faults(), stores=(images, texts), sources=(labels,))
    from lateen.evaluation.from_embeddings import evaluate_embeddings

    result = evaluate_embeddings(images, texts, labels=labels, per_image=per_image, folds=folds)
    _show(result, None, json=json)


def in_order(words: Sequence[str]) -> list[str]:
    """The words after ``lateen`` with the task first, where they are in the other order.

    ``evaluate MODEL --task T ...`` becomes ``evaluate T MODEL ...``, ``--suite S`` the command
    ``suite``, and ``--task T`` with ``--texts`` the command ``embeddings``.

    Raises:
        UsageError: neither a task nor a suite is given, or both, or options of the other one.
    """
    if words[:1] != ["evaluate"] or len(words) == 1 or words[1] in (known := set(app)):
        return list(words)
    rest, task = _without(words[1:], "--task")
    rest, suite = _without(rest, "--suite")
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if "--help" in options:
        return ["evaluate", *([task] if task else []), "--help"]
    if (task is None) == (suite is None):
        if words[1] in RESULT_KINDS and not Path(words[1]).exists():
            raise UsageError(
                f"{words[1]} is no task of a CLIP", f"See `lateen {words[1]} evaluate --help`."
            )
        near = nearest(words[1], known)
        if task is None and near is not None and not Path(words[1]).exists():
            raise UsageError(f"unknown task {words[1]!r}", f"Did you mean {near!r}?")
        raise UsageError(
            "there must be one of --task and --suite",
            "For example: lateen evaluate retrieval MODEL --captions FILE; or lateen evaluate "
            "suite MODEL --data.root DIR --out DIR.",
        )
    if suite is not None:
        for needed in ("--data.root", "--out"):
            if needed not in options:
                raise UsageError(f"--suite needs {needed}", "See `lateen evaluate suite --help`.")
        return ["evaluate", "suite", *rest, "--suite", suite]
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}", choices(str(task), TASKS))
    if "--data.root" in options:
        raise UsageError("--data.root belongs to --suite", "A task takes --data or --images.")
    if options & {"--texts", "--labels"}:
        return ["evaluate", "embeddings", *_ready(str(task), rest, options)]
    return ["evaluate", str(task), *rest]


def _without(words: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """The words without an option and its value, and the value."""
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            return [*words[:index], *words[index + 1 :]], word.partition("=")[2]
        if word == option and index + 1 < len(words):
            return [*words[:index], *words[index + 2 :]], words[index + 1]
    return list(words), None


def _ready(task: str, words: list[str], options: set[str]) -> list[str]:
    """The words of an evaluation of embeddings that are ready, if they make one."""
    if not words[0].startswith("-"):
        raise UsageError(
            "--texts and --labels are of embeddings that need no model", f"Leave {words[0]} out."
        )
    if task not in ("retrieval", "classification") or not {"--images", "--texts"} <= options:
        raise UsageError(
            "there is no model",
            "Name one; or give --images STORE and --texts STORE of embeddings, with --task "
            "retrieval, or with --task classification and --labels.",
        )
    if (task == "classification") != ("--labels" in options):
        raise UsageError(
            f"--task {task} and --labels do not go together",
            "Labels are what classification needs.",
        )
    return words


def unfit(error: CycloptsError, command: str) -> str | None:
    """What is wrong with the options of ``lateen evaluate COMMAND``, if that is what is wrong."""
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{command} needs {error.argument.name}. See `lateen evaluate {command} --help`."
    if not isinstance(error, UnknownOptionError):
        return None
    option = str(error.token.keyword or error.token.value)
    if command == "suite":
        return f"{option} belongs to --task. A suite evaluates every set as published."
    if command == "embeddings":
        return f"{option} is of a model. Embeddings that are ready take no such option."
    names = [name.removeprefix("--") for a in error.argument_collection for name in a.names]
    known = [name for name in names if name != "MODEL"]
    return f"{command} takes no {option}. {choices(option.removeprefix('--'), known)}"


def _show(
    result: Mapping[str, Any], out: Path | None, *, json: bool, form: str | None = None
) -> None:
    from lateen.evaluation.tables import result_tables

    markup = markup_of(form, json=json)
    if json:
        show_json(result)
        return
    if markup:
        show_markup(markup, *result_tables(result))
        return
    show_table(*result_tables(result))
    if out is not None:
        say(f"results  {out / (result['task'] + '.json')}")
        say(f"page     {out / (result['task'] + '.html')}")
        if result.get("pictures"):
            say(f"pictures {out}")


def compare_command(
    *results: Annotated[Path, Parameter(help="result files, or folders of them")],
    labels: Annotated[
        list[str] | None,
        Parameter(help="names of the columns (the folders')", consume_multiple=True),
    ] = None,
    format: Annotated[
        Literal["table", "markdown", "csv", "latex"] | None,
        Parameter(help="what to print; latex needs the package booktabs (table)"),
    ] = None,
    published: Annotated[
        bool, Parameter(help="also published numbers, which are of other models and data")
    ] = False,
    each_seed: Annotated[
        bool,
        Parameter(help="a column for each seed, where runs that differ in it alone are averaged"),
    ] = False,
    out: Annotated[
        Path | None, Parameter(help="write it to a file instead: .csv, .json, .tex or Markdown")
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Hold results of models against each other: a row for each number, a column for each model.

    Results are what `lateen evaluate --out`, `--suite`, `lateen mllm evaluate --out` and `lateen
    run` wrote. A star marks what is best beyond chance: both models are held against each other
    image by image. Rows whose data, prompts or options are not the same for all models are marked,
    and have no best.
    """
    if not results:
        raise UsageError(
            "there is nothing to compare", "Give folders of results, such as runs/*/eval."
        )
    if json and format is not None:
        raise UsageError(f"--json and --format {format} are two forms", "Give one of them.")
    for path in results:
        if not path.exists():
            raise DataError(f"there is no {path}", "Give folders of results, such as runs/*/eval.")
    from lateen.evaluation import comparison
    from lateen.files import write_text

    found = comparison.compare(results, labels, each_seed=each_seed)
    kind = "json" if json else format
    if out is not None:
        by_name = {".csv": "csv", ".json": "json", ".tex": "latex"}.get(
            out.suffix.lower(), "markdown"
        )
        write_text(out, found.text(by_name if kind in (None, "table") else kind, published))
        say(f"table  {out}")
    elif kind in (None, "table"):
        show_table(found.table(published=published))
    else:
        say(found.text(kind, published).rstrip("\n"))
