"""Commands for what other tools made or read: ``import``, ``export``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from lateen.cli.checks import check_inputs, check_model
from lateen.cli.features import summary
from lateen.cli.models import TextPlace, VisionPlace
from lateen.cli.output import say, show_json, show_table
from lateen.errors import Faults, ModelError, StoreError, UsageError
from lateen.files import read_json
from lateen.integrations import check_free, tool, tools

if TYPE_CHECKING:
    from lateen.encoders import Encoder
    from lateen.model import AlignedModel, CardResult


_FEATURES = Group("With --format features")
_SAIL = Group("With --format sail")
_LATEEN = Group("With --to lateen")
_ONNX = Group("With --to onnx")


def import_command(
    file: Path,
    /,
    *,
    format: Annotated[
        Literal["features", "sail"], Parameter(help="sail: a checkpoint of SAIL's released code")
    ] = "features",
    out: Annotated[Path, Parameter(help="folder of the feature store, or of the model")],
    overwrite: Annotated[bool, Parameter(help="replace a store made differently, a model")] = False,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    modality: Annotated[
        Literal["image", "text"] | None,
        Parameter(group=_FEATURES, help="what the features are of; required"),
    ] = None,
    encoder: Annotated[
        str | None, Parameter(group=_FEATURES, help="what made them, as a name; required")
    ] = None,
    ids: Annotated[
        Path | None, Parameter(group=_FEATURES, help="text file, the sample id of each row")
    ] = None,
    column: Annotated[
        str | None, Parameter(group=_FEATURES, help="caption column (caption)")
    ] = None,
    dtype: Annotated[
        Literal["float16", "float32"] | None, Parameter(group=_FEATURES, help="on disk (float16)")
    ] = None,
    vision_encoder: Annotated[
        str | None,
        Parameter(name="--vision.encoder", group=_SAIL, help="that the image head was trained on; "
                  "without it the model only takes features"),
    ] = None,
    vision_pooling: Annotated[
        str | None, Parameter(name="--vision.pooling", group=_SAIL, help="its own if known")
    ] = None,
    text_encoder: Annotated[
        str | None,
        Parameter(name="--text.encoder", group=_SAIL, help="that the text head was trained on"),
    ] = None,
    text_pooling: Annotated[
        str | None, Parameter(name="--text.pooling", group=_SAIL, help="its own if known")
    ] = None,
    trust_remote_code: Annotated[
        bool, Parameter(group=_SAIL, help="run the encoders' own code")
    ] = False,
) -> None:  # fmt: skip
    """Make a feature store from features you already have, or a model from SAIL's released heads.

    Parameters
    ----------
    file
        Features: a .npy array [rows, dim], a .pt tensor (or dict with features and ids), a
        safetensors file of one tensor, or a Parquet file with a list column and an id column; rows
        with NaN are left out and recorded.
        SAIL: the .pt file of its training code.
    """
    of_features = {"--modality": modality, "--encoder": encoder, "--ids": ids, "--column": column,
                   "--dtype": dtype}  # fmt: skip
    of_sail = {"--vision.encoder": vision_encoder, "--vision.pooling": vision_pooling,
               "--text.encoder": text_encoder, "--text.pooling": text_pooling,
               "--trust-remote-code": trust_remote_code or None}  # fmt: skip
    if format == "sail":
        _refuse(of_features, "features")
        if not file.is_file():
            raise ModelError(f"there is no file {file}", "Check the path.")
        check_free(out, overwrite)
        vision = _encoder("vision", vision_encoder, vision_pooling, trust_remote_code)
        text = _encoder("text", text_encoder, text_pooling, trust_remote_code)
        _import_sail(file, out, vision, text, json)
        return
    _refuse(of_sail, "sail")
    if modality is None or encoder is None:
        raise UsageError(
            "importing features needs --modality (image or text) and --encoder (a name for what "
            "made them)",
            "Give both; a checkpoint of SAIL's code needs --format sail instead.",
        )
    if not file.exists():
        raise StoreError(f"there is no file {file}", "Check the path.")
    check_inputs(Faults(), out=out, objects=True)
    from lateen.features import import_features

    store = import_features(
        file, out, ids=ids, modality=modality, encoder=encoder, column=column,
        dtype=dtype or "float16", overwrite=overwrite,
    )  # fmt: skip
    summary(store, json)


def export_command(
    model: Path,
    /,
    *,
    to: Annotated[
        str,
        Parameter(
            name=("--to", "--format"),
            help="; ".join(f"{name}: {what}" for name, what in tools().items()),
            choices=list(tools()),
        ),
    ],
    out: Annotated[Path, Parameter(help="the file for --to sail; the folder for all others")],
    with_encoders: Annotated[
        bool,
        Parameter(
            group=_LATEEN,
            help="also copy the files of both encoders, so that nothing else is needed; an encoder "
            "of your own code (package.module:function) cannot be copied",
        ),
    ] = False,
    bank: Annotated[
        bool,
        Parameter(
            group=_LATEEN,
            negative="--no-bank",
            help="take the query bank along that the model carries: embeddings of a few thousand "
            "training images and captions, with hashes of these images",
        ),
    ] = True,
    results: Annotated[
        list[Path] | None,
        Parameter(
            group=_LATEEN,
            consume_multiple=True,
            help="what `lateen evaluate --out` wrote, for the card (a run's own results)",
        ),
    ] = None,
    int8: Annotated[
        bool,
        Parameter(
            group=_ONNX, help="also write graphs whose weights are bytes: a quarter of the size"
        ),
    ] = False,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    overwrite: Annotated[bool, Parameter(help="replace the file, or the model in it")] = False,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Write a model for other people, or for another tool to read.

    `--to lateen --with-encoders` makes a folder that loads on any machine with lateen, with a model
    card for the Hugging Face hub; no folder of this machine is named in it. SAIL's format holds
    glu, mlp and linear heads of depth 1, t and b, and no encoders. `--to open-clip` takes a plain
    CLIP of transformers, which may be tuned.

    Parameters
    ----------
    model
        Folder of a model, such as runs/f8k/model; or a CLIP or SigLIP by folder or hub id.
    """
    target = tool(to)
    given = {"encoders": with_encoders, "results": results, "int8": int8}
    flags = {"encoders": ("--with-encoders", "lateen"), "results": ("--results", "lateen"),
             "int8": ("--int8", "onnx")}  # fmt: skip
    for name, (flag, owner) in flags.items():
        if given[name] and name not in target.options:
            raise UsageError(f"{flag} belongs to --to {owner}", f"Leave it out, as {to} has none.")
    target.check_place(out, overwrite)
    faults = Faults()
    check_model(faults, model)
    check_inputs(faults)
    from lateen.model import open_model

    ready = open_model(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
    options: dict[str, Any] = {}
    shown: list[Path] = []
    if "results" in target.options:
        options["results"], shown = _card_results(ready, model, results)
    if "encoders" in target.options:
        options["encoders"] = with_encoders
    if "int8" in target.options:
        options["int8"] = int8
    if takes_bank := "query_bank" in target.options:
        options["query_bank"] = bank
    carried = ready.query_bank if takes_bank and bank else None  # a damaged one fails before
    target.export(ready, out, **options)
    _show_model(ready, json, "model" if target.marks else "file", out)
    if json:
        return
    if target.marks:
        say(f"card     {out / 'README.md'}")
    for path in shown:
        say(f"results  of {path}")
    if carried is not None:
        say(f"bank     {carried}")
    elif ready.carries_bank:
        say(f"bank     left out{'' if takes_bank else f', as {to} has no place for one'}")
    if "encoders" in target.options and not with_encoders:
        say("the encoders are not in it (--with-encoders puts them in)")


def _card_results(
    model: AlignedModel, folder: Path, asked: Sequence[Path] | None
) -> tuple[list[CardResult], list[Path]]:
    """The results that a card is to show, and the files that they are in.

    Args:
        model: what they must be of.
        folder: its own; a run's own results lie beside it.
        asked: result files, or folders of them.

    Raises:
        UsageError: one is of another model.
    """
    from lateen.evaluation.features import model_key
    from lateen.evaluation.results import read_all
    from lateen.experiment.preflight import RESULTS

    own = folder.parent / RESULTS
    paths = list(asked) if asked else [own] if own.is_file() else []
    if paths and not asked and (numbers := _tuning_results(own)) is not None:
        return numbers, paths
    key = model_key(model)
    rows: list[CardResult] = []
    files: list[Path] = []
    for saved in read_all(paths) if paths else []:
        if saved.model != key:
            if not asked:
                continue
            raise UsageError(
                f"{saved.path} has results of another model", "Evaluate this one, and give those."
            )
        files.append(saved.path)
        rows += _numbers(*saved.key, saved.result)
    return rows, list(dict.fromkeys(files))


def _tuning_results(path: Path) -> list[CardResult] | None:
    """The numbers in the results of a tuning; ``None`` where a file has others.

    They are of the start and the kept step at once, and so none that are read with the others.
    """
    from lateen.tuning.summary import card_results

    content = read_json(path)
    if not isinstance(content, dict) or content.get("task") != "tune":
        return None
    return card_results(content)


def _numbers(task: str, data: str, result: Mapping[str, Any]) -> Iterator[CardResult]:
    """The numbers that stand first in a result, and all its recalls; in percent."""
    from lateen.evaluation.task import RESULT_KINDS, WITH_BANK, number
    from lateen.model import CardResult

    made, intervals = RESULT_KINDS[task], result.get("intervals") or {}
    first = {label for label, _, _ in made.main_numbers(result)}
    # Those with a query bank stay away: other tools, and a model without its bank, have not those.
    plain = {name: path for name, path in made.headline.items() if not path.startswith(WITH_BANK)}
    for label, path in plain.items():
        value, interval = number(result, path), intervals.get(path)
        words = label.replace("T2I", "text → image").replace("I2T", "image → text")
        if value is not None and (label in first or "R@" in path):
            yield CardResult(
                task, data, words, value, tuple(interval) if interval else None,
                result.get("images"), made.chance(result, path), bool(result.get("chose_step")),
            )  # fmt: skip


def _refuse(options: Mapping[str, object], owner: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise UsageError(
                f"{option} belongs to --format {owner}", f"Leave it out, or use --format {owner}."
            )


def _encoder(
    side: Literal["vision", "text"], name: str | None, pooling: str | None, trust: bool
) -> Encoder | None:
    if name is None and pooling is not None:
        raise UsageError(f"--{side}.pooling needs --{side}.encoder", "Give both, or neither.")
    if name is None:
        return None
    from lateen.encoders import load_encoder, modality_of

    return load_encoder(name, modality_of(side), pooling=pooling, trust_remote_code=trust)


def _import_sail(
    file: Path, out: Path, vision: Encoder | None, text: Encoder | None, as_json: bool
) -> None:
    from lateen.model import AlignedModel

    model = AlignedModel.from_sail_checkpoint(file, vision_encoder=vision, text_encoder=text)
    model.save_pretrained(out)
    _show_model(model, as_json, "model", out)
    if as_json:
        return
    for side, what, given in (("vision", "images", vision), ("text", "texts", text)):
        if given is None:
            say(f"{what} can be encoded once --{side}.encoder says with what; their features can "
                "be projected")  # fmt: skip


def _show_model(model: AlignedModel, as_json: bool, made: str, place: Path) -> None:
    from lateen.report.tables import inspect_table

    config, head = model.config, model.config.head_settings
    facts: dict[str, Any] = {
        "image_head": head.image_name, "text_head": head.name, "width": head.width,
        "image_dim": config.image_dim, "text_dim": config.text_dim, "dim": head.dim,
        "parameters": sum(p.numel() for p in model.parameters()),
        "scale": model.logit_scale.exp().item(), "bias": model.logit_bias.item(),
        "vision_encoder": config.vision["id"], "text_encoder": config.text["id"],
        "checkpoint": (config.training or {}).get("checkpoint"),
        "epoch": (config.training or {}).get("epoch"),
    }  # fmt: skip
    if as_json:
        show_json({made: str(place), **facts})
        return
    facts = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in facts.items()}
    shown = {name.replace("_", " "): value for name, value in facts.items() if value is not None}
    show_table(inspect_table(shown, title=str(place)))
