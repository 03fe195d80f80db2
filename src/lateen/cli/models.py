"""Commands around a model: ``train``, ``search``, ``demo``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lateen.cli.checks import check_inputs, check_model
from lateen.cli.keys import takes_hardware, takes_keys
from lateen.cli.output import process_leads, say, say_skipped, show_json, show_table
from lateen.config import assigned, parse_value
from lateen.errors import DataError, Faults, UsageError
from lateen.experiment.recipe import Recipe, keys
from lateen.training.config import FEATURE_PRESETS

VisionPlace = Annotated[
    str | None, Parameter(name="--vision.encoder", help="where the vision encoder is now")
]
TextPlace = Annotated[
    str | None, Parameter(name="--text.encoder", help="where the text encoder is now")
]
BankPlace = Annotated[
    str | None,
    Parameter(
        help="query bank by which hubs are told: a file of `lateen bank`, none, or model for the "
        "one that the model carries (that one, if there is one)"
    ),
]


@takes_hardware("device")
@takes_keys(key for key in keys().values() if key.path.startswith(("head.", "train.", "bank.")))
def train_command(
    *,
    images: Annotated[Path, Parameter(help="image store")],
    texts: Annotated[
        list[Path], Parameter(help="text stores, one per caption column", consume_multiple=True)
    ],
    out: Annotated[Path, Parameter(help="folder of the model and its checkpoints")],
    preset: Annotated[
        str | None,
        Parameter(
            help="a method's values beneath those given (auto: by the number of pairs)",
            choices=FEATURE_PRESETS,
        ),
    ] = None,
    missing: Annotated[
        Literal["error", "drop"], Parameter(help="ids that only one store has")
    ] = "error",
    ids: Annotated[
        Literal["exact", "alike"],
        Parameter(help="alike: also join ids that differ in ending, folders, capitals or zeros"),
    ] = "exact",
    holdout: Annotated[
        float | None,
        Parameter(
            help="share of images held out to choose the step (5 %, but 200 to 10,000 images)"
        ),
    ] = None,
    holdout_seed: Annotated[int, Parameter(help="which images are held out")] = 0,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        Parameter(help="short for --train.precision"),
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:
    """Train alignment heads on feature stores.

    Every key of the sections head, train and bank is an option: `--head.name glu --train.lr 1e-3`.
    `--train.unpaired.images STORE --train.unpaired.texts STORE` are images without captions and
    texts without images to learn from, too.
    Several processes share every batch, on one machine or many: `torchrun --nproc-per-node 4 -m
    lateen train ...`, with the same arguments.
    """
    if precision is not None:
        overrides = {"train.precision": precision, **overrides}
    settings = {path: parse_value(text, keys()[path].kind) for path, text in overrides.items()}
    named = {} if preset is None else {"preset": preset}
    plan = Recipe.build(assigned(named, overrides, keys()))  # says what does not fit
    unpaired = plan.train.unpaired.sources.values() if plan.train.unpaired else ()
    check_inputs(Faults(), stores=(images, *texts, *map(Path, unpaired)), out=out)
    from lateen.experiment import train
    from lateen.features import pair
    from lateen.model.card import calibration_words

    pairs = pair(images, *texts, missing=missing, ids=ids)
    model = train(
        pairs, preset=preset, holdout=holdout, holdout_seed=holdout_seed, out=out, **settings
    )
    if not process_leads():
        return
    model.save_pretrained(out / "model")
    training = model.config.training or {}
    if json:
        show_json({"model": str(out / "model"), "task": "retrieval", **training["validation"]})
        return
    for way, label in (("text_to_image", "text → image"), ("image_to_text", "image → text")):
        recalls = " / ".join(f"{training['validation'][way][f'R@{k}']:.1f}" for k in (1, 5, 10))
        say(f"held-out {label} R@1/5/10: {recalls} %")
    say(f"step     {training['kept_step']} of {training['steps']}, {training['pairs']} pairs")
    if found := training.get("calibration"):
        say(f"t and b  fitted again: {calibration_words(found)}")
    if model.query_bank is not None:
        say(f"bank     {model.query_bank}")
    say(f"model    {out / 'model'}")


@takes_hardware()
def search_command(
    model: Path,
    query: str | None = None,
    /,
    *,
    image: Annotated[
        Path | None, Parameter(help="look for photographs like this one, instead of a sentence")
    ] = None,
    images: Annotated[Path, Parameter(help="folder of photographs, with its subfolders")],
    k: Annotated[int, Parameter(name="--k", help="how many to find")] = 12,
    bank: BankPlace = None,
    out: Annotated[Path | None, Parameter(help="also write a contact sheet (PNG)")] = None,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Find the photographs that a sentence describes, or that are like an image.

    The search is exact. Only photographs that are new or changed since the last search are encoded.
    With a query bank, photographs that are near to every sentence stand further back: they are
    ordered by their score less their hubness, which is shown beside it. A photograph that is the
    query image itself, to the byte, is no hit, and told.

    Parameters
    ----------
    model
        Folder of a model, such as runs/f8k/model; or a CLIP or SigLIP by folder or hub id.
    query
        What to look for, in words.
    """
    if (query is None) == (image is None):
        raise UsageError(
            "there is nothing to look for" if image is None else "there are two queries",
            "Give either a sentence or --image FILE.",
        )
    if image is not None and not image.is_file():
        raise DataError(f"there is no image {image}", "Check the path of the query.")
    if query is not None and Path(query).suffix and Path(query).is_file():
        raise UsageError(f"the query {query!r} is a file", "For photographs like it: --image FILE.")
    faults = Faults()
    check_model(faults, model)
    check_inputs(faults, folders=(images,), out=out and out.parent)
    from lateen.indexing import search
    from lateen.model import open_model

    ready = open_model(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
    skipped: list[dict[str, str]] = []
    same: list[str] = []
    asked = image if image is not None else str(query)
    [hits] = search(ready, asked, images, k=k, bank=bank, skipped=skipped, same=same)
    if out is not None:
        _write_sheet(asked, hits, out)
    if json:
        words = {"query": query} if image is None else {"image": str(image), "same": same}
        show_json({**words, "hits": [hit.as_dict() for hit in hits], "skipped": skipped})
        return
    from lateen.report.tables import hits_table

    title = query if image is None else f"like {image.name}"
    show_table(hits_table([hit.as_dict() for hit in hits], title=str(title)))
    if same:
        say(f"left out, as it is the query itself: {', '.join(same)}")
    say_skipped(skipped)
    if out is not None:
        say(f"contact sheet  {out}")


def demo_command(
    *,
    out: Annotated[Path, Parameter(help="folder of the demo")] = Path("demo-out"),
    quick: Annotated[
        bool, Parameter(help="a tenth of the data: a smoke test, poor numbers")
    ] = False,
) -> None:
    """Show everything on a generated world, without data or network, in under three minutes."""
    from lateen.demo import run_demo

    page, tables = run_demo(out, quick=quick)
    show_table(*tables)
    say(f"report  {page.resolve()}")


def _write_sheet(query: str | Path, hits: list[Any], out: Path) -> None:
    from lateen.report.sheet import SheetHit, SheetRow, contact_sheet, save_png

    shown = [
        SheetHit(hit.path, hit.id, hit.score if hit.adjusted is None else hit.adjusted)
        for hit in hits
    ]
    if isinstance(query, Path):
        shown.insert(0, SheetHit(query, "the query"))
    title = f"like {query.name}" if isinstance(query, Path) else query
    save_png(contact_sheet([SheetRow(title, shown)]), out)
