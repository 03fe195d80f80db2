"""The model card of a saved model: README.md, as the hub's metadata wants it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lateen.encoders import SIDES, Side
from lateen.encoders.openai_server import is_server, parse_address
from lateen.encoders.own import is_factory
from lateen.encoders.specs import find_spec
from lateen.files import write_text
from lateen.model.config import AlignedConfig

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

_DEPTHS = ("R@1", "R@5", "R@10")
_TAGS = ["clip", "vision-language", "zero-shot"]
_PIPELINE = "zero-shot-image-classification"
_WAYS = {"text_to_image": "text → image", "image_to_text": "image → text"}


@dataclass(frozen=True)
class CardResult:
    """One number of a card.

    Attributes:
        task: as lateen calls it: ``retrieval``.
        data: what it was measured on, in a few words.
        metric: its name.
        value: in percent.
        interval: its lowest and highest likely value, if it is known.
        images: how many it is of, if that is known.
        chance: what guessing scores, if that is known.
        chose: whether this split also chose the training step that was kept.
    """

    task: str
    data: str
    metric: str
    value: float
    interval: tuple[float, float] | None = None
    images: int | None = None
    chance: float | None = None
    chose: bool = False


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder, or a part of a fused one, comes from, and what its own card says.

    Attributes:
        name: for people: a hub id, the name of a folder, or ``package.module:function``.
        hub: its hub id, if it has one.
        licence: as its card or config says, in the hub's words; ``None`` where neither does.
        languages: that its card says.
    """

    name: str
    hub: str | None
    licence: str | None
    languages: tuple[str, ...] = ()

    @classmethod
    def of(cls, load: Mapping[str, Any], folder: Path | None) -> EncoderSource:
        """From what loads an encoder, and its folder if that is here."""
        given = str(load.get("name", "unknown"))
        if is_server(given):  # the address says nothing to others
            return cls(parse_address(given).model, None, None)
        spec = find_spec(given)
        hub = spec.id if spec else given if load.get("revision") else None
        name = hub or (given if is_factory(given) else Path(given).name)
        said = _said(folder) if folder is not None else {}
        languages = said.get("language") or ()
        languages = (languages,) if isinstance(languages, str) else tuple(languages)
        return cls(name, hub, _licence(said), tuple(str(each) for each in languages))

    @property
    def licence_text(self) -> str:
        """Its licence, or where to look it up."""
        if self.licence:
            return self.licence
        where = f"https://huggingface.co/{self.hub}" if self.hub else "where it came from"
        return f"unknown: look it up ({where})"


def _said(folder: Path) -> dict[str, Any]:
    """What an encoder's own card, else its config, says of it."""
    from huggingface_hub.repocard import metadata_load

    card: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        card = metadata_load(folder / "README.md") or {}
    if "license" not in card:
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            config = yaml.safe_load((folder / "config.json").read_text(encoding="utf-8"))
            if isinstance(config, dict) and isinstance(config.get("license"), str):
                card = {**card, "license": config["license"]}
    return card


def _licence(said: Mapping[str, Any]) -> str | None:
    licence = said.get("license")
    if not licence:
        return None
    named = licence if isinstance(licence, str) else ", ".join(map(str, licence))
    details = [str(said[key]) for key in ("license_name", "license_link") if said.get(key)]
    return f"{named} ({', '.join(details)})" if details else named


@dataclass(frozen=True)
class CardForm:
    """What a card says of the form that a model is saved in.

    Attributes:
        library: that loads it, as the hub calls it.
        code: how it is loaded and used, in Python.
        whole: whether both encoders are in it; ``None`` for what the config says.
        title: its name; that of the folder if not given.
    """

    library: str
    code: str
    whole: bool | None = None
    title: str | None = None


LATEEN_FORM = CardForm(
    "lateen",
    """from lateen import AlignedModel

model = AlignedModel.from_pretrained("path/to/this/folder")
images = model.encode_image(["photo.jpg"])  # [1, dim], L2-normalised
texts = model.encode_text(["a dog on a beach"])  # [1, dim]
print(images @ texts.T)""",
)


def write_card(
    config: AlignedConfig,
    folder: Path,
    sources: Mapping[Side, Sequence[EncoderSource]],
    results: Sequence[CardResult] = (),
    bank: str | None = None,
    form: CardForm = LATEEN_FORM,
) -> None:
    """Write README.md in the hub's model-card form. No path of this machine is in it.

    Args:
        config: of the model.
        folder: of the saved model.
        sources: of each side, its encoder or the parts of it.
        results: to show; those of the split that chose the training step stand in the config.
        bank: what its query bank is of, if it carries one.
        form: in which it is saved.
    """
    from huggingface_hub import ModelCardData

    training = dict(config.training or {})
    validation = training.pop("validation", None)
    if found := training.pop("calibration", None):
        training["scale and bias"] = f"fitted again, {calibration_words(found)}"
    if bank is not None:
        training["query bank"] = bank
    shown = list(results)
    if not any(each.chose for each in results):
        shown += _validation(validation)
    absent = dict.fromkeys(("pooling", "layer", "dim", "weights"))
    sides = {side: {**absent, **(getattr(config, side) or {})} for side in SIDES}
    heads, name = config.head_settings, form.title or title_of(folder)
    both = [source for side in SIDES for source in sources[side]]
    bases = list(dict.fromkeys(source.hub for source in both if source.hub))
    languages = list(dict.fromkeys(each for s in sources["text"] for each in s.languages))
    _write(
        folder, "model_card.md.j2",
        ModelCardData(
            library_name=form.library, tags=_TAGS, pipeline_tag=_PIPELINE, base_model=bases or None,
            language=languages or None, **_measured(name, shown),
        ),
        name=name, vision=sides["vision"], text=sides["text"],
        vision_name=_joined(sources["vision"]), text_name=_joined(sources["text"]),
        image_head=heads.image_name, text_head=heads.name, dim=(config.head or {}).get("dim"),
        sources=[(side, source) for side in SIDES for source in sources[side]],
        packed=config.embedded_encoders if form.whole is None else form.whole, results=shown,
        code=form.code,
        conditions=training,
    )  # fmt: skip


def calibration_words(found: Mapping[str, Any]) -> str:
    """What a :class:`~lateen.training.calibration.Calibration` says, in a line."""
    words = f"t {found['scale']:.3g}, b {found['bias']:.3g} on {found['images']:,} held-out images"
    if found["error"] is None:
        return words
    return f"{words}; calibration error {found['error']:.1f} % (before {found['before']:.1f} %)"


@dataclass(frozen=True)
class ClipCard:
    """What the card of a ready CLIP says of it, beside its origin and its numbers.

    Attributes:
        title: its name.
        library: that loads it, as the hub calls it.
        about: what was done to its origin, to go after the origin's name and a comma.
        code: how it is loaded, in Python.
        tuned: whether its weights are others than its origin's.
    """

    title: str
    library: str
    about: str
    code: str
    tuned: bool


def write_clip_card(
    folder: Path,
    card: ClipCard,
    load: Mapping[str, Any],
    source: Path,
    training: Mapping[str, Any] | None = None,
    results: Sequence[CardResult] = (),
) -> None:
    """Write README.md for a CLIP that is one of transformers', tuned or in another form.

    The licence that the origin's card states is stated again. No path of this machine is in it.

    Args:
        folder: where to.
        card: what it says.
        load: what loads the origin, as an encoder's ``load``.
        source: the folder of the origin.
        training: conditions of the tuning.
        results: to show.
    """
    from huggingface_hub import ModelCardData

    origin, said = EncoderSource.of(load, source), _said(source)
    keys = ("license", "license_name", "license_link", "language")
    stated = {key: said[key] for key in keys if said.get(key)}
    if card.tuned and origin.hub:
        stated["base_model_relation"] = "finetune"
    _write(
        folder, "clip_card.md.j2",
        ModelCardData(
            library_name=card.library, tags=_TAGS, pipeline_tag=_PIPELINE, base_model=origin.hub,
            **stated, **_measured(card.title, results),
        ),
        name=card.title, base=origin.hub or title_of(source), about=card.about, code=card.code,
        tuned=card.tuned, licence=origin.licence_text, results=results, conditions=training,
    )  # fmt: skip


def _write(folder: Path, template: str, data: ModelCardData, **values: Any) -> None:
    """Write README.md from one of the templates beside this file."""
    from huggingface_hub import ModelCard
    from jinja2 import Environment, FileSystemLoader

    templates = Environment(loader=FileSystemLoader(Path(__file__).parent))
    card = ModelCard(templates.get_template(template).render(card_data=data.to_yaml(), **values))
    write_text(folder / "README.md", f"{str(card).rstrip()}\n")


def _measured(name: str, results: Sequence[CardResult]) -> dict[str, Any]:
    """Results for the metadata; a model-index without any is refused by the hub."""
    if not results:
        return {}
    return {"model_name": name, "eval_results": [_eval_result(each) for each in results]}


def _validation(validation: Mapping[str, Any] | None) -> Iterator[CardResult]:
    """The numbers of the split that chose the step, both ways."""
    if not validation:
        return
    intervals = validation.get("intervals") or {}
    for way, label in _WAYS.items():
        for depth in _DEPTHS:
            interval = intervals.get(f"{way}.{depth}")
            yield CardResult(
                "retrieval", "held-out split", f"{label} {depth}", validation[way][depth],
                tuple(interval) if interval else None, validation.get("images"), chose=True,
            )  # fmt: skip


def _eval_result(result: CardResult) -> EvalResult:
    from huggingface_hub import EvalResult

    known = {
        "unit": "percent", "interval": list(result.interval) if result.interval else None,
        "images": result.images, "chance": result.chance,
        "chose_training_step": True if result.chose else None,
    }  # fmt: skip
    return EvalResult(
        task_type=result.task, dataset_type=_slug(result.data), dataset_name=result.data,
        metric_type=_slug(result.metric), metric_name=result.metric,
        metric_value=round(result.value, 2),
        metric_args={key: value for key, value in known.items() if value is not None},
    )  # fmt: skip


def _slug(words: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", words.lower().replace("→", "to")))


def title_of(folder: Path) -> str:
    """What a saved model is called: its folder, or that of the run it is in."""
    whole = folder.resolve()
    return whole.parent.name if whole.name == "model" else whole.name


def _joined(sources: Sequence[EncoderSource]) -> str:
    return " + ".join(source.name for source in sources)
