"""Commands of multimodal language models: ``mllm build``, ``train``, ``answer``, ``evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from lateen.cli.checks import (
    check_benchmark,
    check_counts,
    check_inputs,
    check_language,
    check_mllm,
    check_mllm_training,
    check_question_suite,
    check_tower,
    known_benchmarks,
)
from lateen.cli.costs import cost_table, stage_sentences
from lateen.cli.keys import takes_hardware, takes_keys
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
from lateen.cli.swapping import compare_command, swap_command
from lateen.errors import DataError, Faults, LateenError, UsageError
from lateen.mllm.config import MultimodalRecipe

if TYPE_CHECKING:
    from lateen.mllm import Assembled
    from lateen.mllm.suite import HowAsked

_JSON = Annotated[bool, Parameter(help="print JSON")]

app = App(
    name="mllm",
    help="A vision tower in a multimodal language model: put together as transformers' Llava, "
    "asked about images, evaluated on the benchmarks of the field.",
    usage="Usage: lateen mllm COMMAND [OPTIONS]",
)


app.command(swap_command, name="swap")
app.command(compare_command, name="compare")


@app.command(name="build")
def build_command(
    *,
    tower: Annotated[
        list[str],
        Parameter(help="folder of a model, such as runs/f8k/model; a CLIP or vision encoder by "
                       "folder or hub id; several are fused: --tower A --tower B"),
    ],
    llm: Annotated[str, Parameter(help="folder, GGUF file or hub id of a language model")],
    out: Annotated[Path, Parameter(help="folder of the multimodal model")],
    mix: Annotated[
        Literal["additive", "interleaved", "channels"] | None,
        Parameter(help="of several towers' tokens: added (MMVP's Additive-MoF), alternating "
                       "(Interleaved-MoF), or side by side as longer ones (additive)"),
    ] = None,
    share: Annotated[
        float | None, Parameter(help="of the first tower in an additive mixture (0.5)")
    ] = None,
    tokens: Annotated[
        Literal["cls+patch", "patch", "cls,patch"] | None,
        Parameter(help="of an image: patches with the CLS token before each (SAIL), patches, or "
                       "the image's own feature and then patches (what the head was trained for)"),
    ] = None,
    layer: Annotated[
        int | None,
        Parameter(help="hidden layer of the backbone, without the head (LLaVA: -2)",
                  allow_leading_hyphen=True),
    ] = None,
    bare: Annotated[bool, Parameter(help="leave the model's image head out")] = False,
    grid: Annotated[
        int | None, Parameter(help="average the patches to N × N: fewer tokens, less time")
    ] = None,
    norm: Annotated[
        Literal["layer", "none"],
        Parameter(help="of each token: to mean 0 and deviation 1, by which a projector learns "
                       "faster; or as they are (LLaVA)"),
    ] = "layer",
    template: Annotated[
        str | None,
        Parameter(help="chat template: chatml, vicuna or a file of Jinja (the language model's)"),
    ] = None,
    seed: Annotated[int, Parameter(help="of the projector's start")] = 0,
    json: _JSON = False,
) -> None:  # fmt: skip
    """Put a vision tower in front of a language model, with a new and untrained projector.

    OUT loads with transformers' AutoModelForImageTextToText where lateen.mllm is imported. Until
    its projector is trained, its answers have nothing to do with the image.
    """
    faults = Faults()
    for name in tower:
        check_tower(faults, name)
    check_language(faults, llm)
    check_inputs(faults, out=out)
    from lateen.mllm import build

    built = build(
        tower, llm, out, mix=mix, share=share, tokens=tokens, layer=layer, bare=bare, grid=grid,
        norm=norm, template=template, seed=seed,
    )  # fmt: skip
    if json:
        show_json({"model": str(out), **built.record})
        return
    _say_built(built, out)


@app.command(name="train")
@takes_keys(
    key for key in MultimodalRecipe.known_keys().values() if key.path not in ("start", "tower")
)
def train_command(
    *,
    tower: Annotated[
        list[str] | None, Parameter(help="folder of a model, such as runs/f8k/model; a CLIP or "
                                         "vision encoder by folder or hub id")
    ] = None,
    start: Annotated[
        str | None, Parameter(name="--from", help="a multimodal model to go on with, instead of "
                                                  "--tower and --llm")
    ] = None,
    data: Annotated[
        str | None, Parameter(help="what to learn from: LLaVA's JSON, captions, or a "
                                   "set of questions, such as easy-vqa")
    ] = None,
    recipe: Annotated[
        Path | None, Parameter(help="YAML file, or the name of one that comes with lateen: "
                                    "mllm-flickr8k; what is given here stands above it")
    ] = None,
    out: Annotated[Path, Parameter(help="folder of the multimodal model; training.json and "
                                        "training.html say how it was trained")],
    plan: Annotated[
        bool, Parameter(help="train nothing: predict time, disk and memory from a few steps",
                        negative="")
    ] = False,
    gpu_tflops: Annotated[
        float | None, Parameter(help="what a GPU sustains, in TFLOP/s, for hours on it (--plan)")
    ] = None,
    json: _JSON = False,
    overrides: Mapping[str, str],
) -> None:  # fmt: skip
    """Train one of LLaVA-1.5's stages: the projector on captions, then the language model too.

    `--stage projector` learns the projector alone; `--stage instruct` the language model with it,
    whole or by low-rank additions (`--tune lora`), on conversations. The loss on held-out images
    is measured under their own and under another's. A killed training goes on with the same
    command.
    """
    given: dict[str, Any] = {"tower": tower, "start": start, "data.root": data, **overrides}
    checked = MultimodalRecipe.above(recipe, {key: each for key, each in given.items() if each})
    if gpu_tflops is not None and not plan:
        raise UsageError("--gpu-tflops is of --plan", "Give both.")
    check_mllm_training(checked, out)  # before torch is loaded
    if plan:
        _plan_stage(checked, out, gpu_tflops, json)
        return
    from lateen.mllm.training import run_stage

    results = run_stage(checked, out).results
    if not process_leads():
        return
    if json:
        show_json(results)
        return
    _say_trained(results, out)


def _plan_stage(recipe: MultimodalRecipe, out: Path, gpu_tflops: float | None, json: bool) -> None:
    from lateen.mllm.planning import plan_stage

    result = plan_stage(recipe, out=out, gpu_tflops=gpu_tflops)
    if json:
        show_json(result)
        return
    show_table(cost_table(result, "What this stage costs here"))
    for sentence in stage_sentences(result):
        say(sentence)


@app.command(name="answer")
@takes_hardware("device")
def answer_command(
    model: Path,
    question: str,
    /,
    *,
    image: Annotated[
        list[Path] | None, Parameter(help="of which is asked; several in the order of their "
                                     "places, given again: --image A --image B")
    ] = None,
    system: Annotated[str | None, Parameter(help="what the model is told of its task")] = None,
    max_tokens: Annotated[int | None, Parameter(help="of the answer at most (256)")] = None,
    json: _JSON = False,
) -> None:  # fmt: skip
    """Ask a multimodal language model about one image or several.

    On a terminal the answer comes word by word. The likeliest token is taken each time, so the same
    question has the same answer.

    Parameters
    ----------
    model
        Folder that `lateen mllm build` made, or the hub id of a Llava.
    question
        In words. Images stand before it, or where it says `<image>`.
    """
    check_counts({"--max-tokens": max_tokens})
    faults = Faults()
    check_mllm(faults, model)
    for file in image or []:
        with faults.note():
            if not file.is_file():
                raise DataError(f"there is no image {file}", "Check its path.")
    faults.raise_all()
    from lateen.mllm import MultimodalModel
    from lateen.mllm.asking import MOST_TOKENS

    ready = MultimodalModel.from_pretrained(model)
    live = sys.stdout.isatty() and not json
    given = ready.answer(
        question, image or [], max_tokens=max_tokens or MOST_TOKENS, system=system,
        stream=_write if live else None,
    )  # fmt: skip
    if json:
        show_json(given.as_dict())
        return
    say("" if live else given.text)
    for note in given.notes:
        say(f"[{note}]")


@app.command(name="evaluate")
@takes_hardware("device")
def evaluate_command(
    model: Path | None = None,
    /,
    *,
    benchmark: Annotated[str | None, Parameter(help="which: see --list")] = None,
    suite: Annotated[
        str | None,
        Parameter(help="all of a paper's benchmarks instead, whose folders are below --data: vqa "
                       "(sail's seven), kuea, in-context (with --shots)"),
    ] = None,
    data: Annotated[
        Path | None,
        # In this order: behind --data, cyclopts takes .root for a key of it.
        Parameter(name=("--data.root", "--data"),
                  help="folder of the benchmark's files, as its owners publish them; of "
                       "pope-of-captions and captions-of a dataset with captions; of --suite the "
                       "folder of all"),
    ] = None,
    split: Annotated[str | None, Parameter(help="of the benchmark (the usual one)")] = None,
    images: Annotated[
        Path | None, Parameter(help="folder of its images, where it is not below --data")
    ] = None,
    limit: Annotated[
        int | None, Parameter(help="ask so many questions, drawn by lot, and no more")
    ] = None,
    control: Annotated[
        bool,
        Parameter(help="ask each question once more under another's image, which tells what "
                       "language alone answers", negative="--no-control"),
    ] = True,
    shots: Annotated[
        int, Parameter(help="examples before each question, drawn by lot for each")
    ] = 0,
    shots_from: Annotated[
        str | None,
        Parameter(help="where they are from: a split of the benchmark, or a folder or dataset of "
                       "its form (its split to train on)"),
    ] = None,
    by: Annotated[
        Literal["generation", "first-token", "likelihood"] | None,
        Parameter(help="how answers are found: generated; or, of yes/no and letters, the likeliest "
                       "first token (this on a CPU, where it is cheaper; else generated); "
                       "likelihood answers nothing: it compares how likely captions are under "
                       "images, of captions and POPE"),
    ] = None,
    max_tokens: Annotated[
        int | None, Parameter(help="of a generated answer (16; boxes and captions 64, texts 1024)")
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="folder for the whole result, a page, and answers as they come: a run that "
                       "was killed goes on with the same command"),
    ] = None,
    list_: Annotated[
        bool, Parameter(name="--list", help="show the benchmarks there are", negative="")
    ] = False,
    format: TableFormat = None,
    json: _JSON = False,
) -> None:  # fmt: skip
    """Evaluate a multimodal language model on a benchmark's questions; in percent.

    Of a split whose right answers are not published, the file for its server is written instead.
    `lateen compare` holds results against each other.

    Parameters
    ----------
    model
        Folder that `lateen mllm build` made, or the hub id of a Llava.
    """
    markup = markup_of(format, json=json)
    if list_:
        _list_benchmarks(json)
        return
    check_counts({"--limit": limit, "--max-tokens": max_tokens, "--shots": shots or None})
    if benchmark is not None and suite is not None:
        raise UsageError("--benchmark and --suite are two things", "Give one of them.")
    if model is None or (benchmark is None and suite is None):
        lacks = "no model" if model is None else "no --benchmark"
        raise UsageError(
            f"there is {lacks}", "For example: lateen mllm evaluate MODEL --benchmark pope "
            "--data DIR. See --list.",
        )  # fmt: skip
    if shots_from is not None and not shots:
        raise UsageError("--shots-from is of --shots", "Say how many: --shots 4.")
    answered_by: Any = "first token" if by == "first-token" else by
    faults = Faults()
    check_mllm(faults, model)
    if suite is not None:
        alone = {
            "--split": split, "--images": images, "--shots-from": shots_from,
            "--by likelihood": by == "likelihood" or None,
        }  # fmt: skip
        places = _check_suite(faults, suite, data, out, alone)
        from lateen.mllm.suite import HowAsked

        how = HowAsked(limit, control, answered_by, max_tokens, shots)
        _evaluate_suite(model, *places, suite, how, markup, json=json)
        return
    assert benchmark is not None
    check_benchmark(faults, benchmark)
    check_inputs(faults, sources=[data, images], out=out)
    from lateen.evaluation.tables import result_tables
    from lateen.mllm import evaluate_questions, open_questions
    from lateen.mllm.shots import open_shots

    questions = open_questions(benchmark, data, images=images, split=split)
    examples = open_shots(
        benchmark, shots, data, source=shots_from, split=split, images=images
    ) if shots else None  # fmt: skip
    result = evaluate_questions(
        model, questions, out=out, limit=limit, control=control, max_tokens=max_tokens,
        answered_by=answered_by, shots=examples,
    )  # fmt: skip
    if json:
        show_json(result)
    elif "upload" in result:
        _say_upload(result, out)
    elif markup:
        show_markup(markup, *result_tables(result))
    else:
        show_table(*result_tables(result))
        _say_files(result, out)


def _check_suite(
    faults: Faults, suite: str, data: Path | None, out: Path | None, alone: Mapping[str, Any]
) -> tuple[Path, Path]:
    """See that a suite can be evaluated, and where; ``alone`` are options of one benchmark."""
    if data is None or out is None:
        raise UsageError("--suite needs --data and --out", "Give the folder of all benchmarks.")
    for option, given in alone.items():
        if given is not None:
            raise UsageError(f"{option} is of one benchmark", "Leave it out of a suite.")
    check_question_suite(faults, suite)
    check_inputs(faults, folders=[data], out=out)
    return data, out


def _evaluate_suite(
    model: Path, data: Path, out: Path, suite: str, how: HowAsked, markup: Markup | None, *,
    json: bool,
) -> None:  # fmt: skip
    from lateen.evaluation.suite_page import PAGE, SUMMARY, suite_tables
    from lateen.mllm.suite import evaluate_suite

    summary, results = evaluate_suite(model, data, out, suite=suite, how=how)
    if json:
        show_json({**summary, "results": results})
        return
    tables = suite_tables(summary, results, published=True)
    if markup:
        show_markup(markup, *tables)
        return
    show_table(*tables)
    states = [each["state"] for each in summary["evaluations"]]
    if not results and "upload" not in states:
        raise LateenError(f"none of the benchmarks could be asked: see {out / SUMMARY}")
    if kept := states.count("kept"):
        say(f"{kept} of {len(results)} were done before")
    say(f"results  {out / SUMMARY}")
    say(f"report   {out / PAGE}")


def _list_benchmarks(json: bool) -> None:
    from lateen.evaluation.published import MLLM_SUITES
    from lateen.report.tables import Column, TableData

    known = known_benchmarks()
    if json:
        show_json(known)
        return
    rows = [[name, summary] for name, summary in known.items()]
    suites = "; ".join(f"{name}: {', '.join(MLLM_SUITES[name])}" for name in MLLM_SUITES)
    columns = [Column("--benchmark", whole=True), Column("")]
    show_table(TableData("", columns, rows, f"Suites (--suite). {suites}."))


def _say_upload(result: Mapping[str, Any], out: Path | None) -> None:
    say("the right answers are not published: send this file to the benchmark's server, or to a "
        "judge")  # fmt: skip
    for warning in result["warnings"]:
        say(f"beware: {warning}")
    if result["cut"]:
        say(f"{result['cut']:,} answers are cut by the limit of {result['max_tokens']} tokens")
    if out is not None:
        say(f"upload   {out / result['upload']}")


def _say_files(result: Mapping[str, Any], out: Path | None) -> None:
    from lateen.mllm.evaluation import result_stem

    if out is not None:
        name = result_stem(result)
        say(f"results  {out / name}.json")
        say(f"page     {out / name}.html")


def _say_trained(results: Mapping[str, Any], out: Path) -> None:
    from lateen.mllm.training import FOLDER, PAGE, SKIPPED

    data, checks = results["data"], results["checks"]
    say(f"learned    {data['conversations']:,} conversations about {data['images']:,} images, "
        f"{results['steps']:,} steps in {results['seconds'] / 60:.1f} min")  # fmt: skip
    if data["skipped"]:
        say(f"left out   {data['skipped']:,} (see {out / FOLDER / SKIPPED})")
    if data["turns_left_out"]:
        say(f"too long   {data['turns_left_out']:,} last turns of conversations are left out")
    if checks:
        last = checks[-1]
        low, high = last["intervals"]["lower"]
        say(f"held out   loss {last['own']:.3f} under the own image, {last['another']:.3f} under "
            f"another's; own lower for {last['lower']:.1f} % ({low:.1f} to {high:.1f}, chance 50) "
            f"of {last['n']:,} images")  # fmt: skip
    say(f"model      {out}")
    say(f"report     {out / PAGE}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say_built(built: Assembled, out: Path) -> None:
    record: dict[str, Any] = built.record
    tower, scales = record["tower"], built.scales
    parts = tower.get("parts", [])
    how = _kind(tower)
    if parts:
        how = tower["mix"] + (f", {tower['share']:g} of the first" if tower["share"] else "")
    say(f"tower      {tower['encoder']['id']}: {tower['tokens_per_image']} tokens of "
        f"{tower['width']} values ({how})")  # fmt: skip
    for part in parts:
        say(f"  part     {part['encoder']['id']}: {part['width']} values ({_kind(part)}), scale "
            f"{part['rms']:.3g}")  # fmt: skip
    say(f"llm        {record['llm']['name']}: embeddings of {record['llm']['width']} values, "
        f"template {record['template']}")  # fmt: skip
    say(f"scale      tokens {scales.tokens:.3g}, projected {scales.projected:.3g}, embeddings "
        f"{scales.embeddings:.3g} (root mean squares, made-up pictures)")  # fmt: skip
    say("projector  untrained: until it is trained, answers have nothing to do with the image")
    say(f"model      {out}")


def _kind(tower: Mapping[str, Any]) -> str:
    head = "through the model's head" if tower["head"] else "without a head"
    if tower["projection"]:
        head = "through the CLIP's projection"
    return f"{tower['tokens']}, {head}"
