"""Commands around a model: ``train``, ``demo``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lateen.cli.checks import check_inputs
from lateen.cli.keys import takes_hardware, takes_keys
from lateen.cli.output import process_leads, say, show_json, show_table
from lateen.config import assigned, parse_value
from lateen.errors import Faults
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
