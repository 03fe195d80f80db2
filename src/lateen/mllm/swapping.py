"""Another vision tower in a multimodal language model, without training (KUEA, ICML 2025).

The projector reads the tokens of the tower that it was trained on. A tower that was tuned and kept
near its start gives tokens near those, and can take its place; what else may not be said is told
here: how far the tokens are, and that language model and projector are what they were.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig

from lateen.encoders.faults import explained
from lateen.encoders.resolve import check_mllm_folder
from lateen.encoders.weights import quiet_transformers, tensors_hash
from lateen.errors import EncoderError, ModelError, UsageError
from lateen.files import atomic_folder, library_versions, read_json, refuse_foreign
from lateen.mllm.answering import AnsweredBy
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.assembly import (
    RECORD,
    llava_of,
    made_up_pictures,
    write_model,
)
from lateen.mllm.backbone import open_tower, trained_on_of
from lateen.mllm.benchmarks.questions import QuestionSet
from lateen.mllm.card import UNTRAINED
from lateen.mllm.comparison import SideBySide, compare_answers
from lateen.mllm.evaluation import evaluate_questions
from lateen.mllm.replacement import REMEDY, Needed, check_fit, needed_of
from lateen.mllm.tower import AlignedTower, root_mean_square
from lateen.model import AlignedModel
from lateen.model.trained_on import TrainedOn
from lateen.progress import log

AFTER, BEFORE = "eval", "eval-before"
"""Folders, in that of the swapped model, for what both answered."""
_PICTURES = 16
# Of an image processor: what it is called, and what changes no pixel.
_NAMES = ("image_processor_type", "processor_class", "data_format", "device", "return_tensors")


@dataclass(frozen=True)
class Swapped:
    """What a swap did.

    Attributes:
        record: ``mllm.json`` of the new folder; the last of its ``swapped`` is this one.
        notes: what whoever uses it has to know, in sentences.
    """

    record: dict[str, Any]
    notes: list[str]

    @property
    def entry(self) -> dict[str, Any]:
        """What the record says of this swap."""
        entry: dict[str, Any] = self.record["swapped"][-1]
        return entry


def swap(mllm: str | Path, tower: str | Path | AlignedModel, out: str | Path) -> Swapped:
    """Put another vision tower into a multimodal language model, and train nothing.

    The tower gives the tokens that the old one gave: of the same kind, layer and grid. Images are
    prepared as it takes them. Language model and projector are hashed before, and again as they are
    read back from the new folder.

    Args:
        mllm: folder of the model, trained or not; or the hub id of a LLaVA with a CLIP tower.
        tower: as for :func:`~lateen.mllm.build`.
        out: folder for the new model; that of an earlier multimodal model is replaced. What was
            evaluated in it stays if it is of this very swap.

    Returns:
        The record, with hashes of language model, projector and both towers, how far the new tokens
        are from the old ones, and what is done otherwise to images.

    Raises:
        ModelError: the tower gives other tokens (kind, number, width), or the old one's cannot be
            told; the model is not there or not whole; or a part changed on its way to the disk.
        EncoderError: the tower cannot be opened.
        UsageError: ``out`` is the model itself.
    """
    out = Path(out)
    check_mllm_folder(mllm)
    if Path(mllm).expanduser().resolve() == out.resolve():
        raise UsageError(f"{out} is the model itself", "Choose another --out: it stays as it is.")
    refuse_foreign(out, "the folder of a multimodal model", (RECORD,), error=ModelError)
    needed = needed_of(_config(mllm), mllm)
    new, image_processor = _opened(tower, needed, mllm)
    check_fit(new.config, needed, named=_named(tower), place=mllm)
    with atomic_folder(out) as folder:
        images = trained_on_of([tower])
        record = _write(folder, mllm, new, image_processor, needed, out.name, images)
        _prove(folder, record["swapped"][-1])
        _keep_evaluations(out, folder, record)
    swapped = Swapped(record, list(_notes(record)))
    for note in swapped.notes:
        log.warning("%s", note)
    return swapped


def evaluate_swap(
    mllm: str | Path, swapped: str | Path, questions: QuestionSet, *, limit: int | None = None,
    answered_by: AnsweredBy | None = None, max_tokens: int | None = None, control: bool = True,
) -> SideBySide:  # fmt: skip
    """Ask a model and the one that was made of it by a swap the same questions.

    Results, pages and answers are written into the new model's folder: ``eval-before`` has those of
    the old one, ``eval`` its own, and beside them the comparison of both. A run that was killed
    goes on.

    Args:
        mllm: the model before.
        swapped: folder of the model after.
        questions: whose right answers are known.
        limit: ask so many of the questions, drawn by lot, and no more.
        answered_by: as for :func:`lateen.mllm.evaluate_questions`.
        max_tokens: likewise.
        control: likewise.

    Raises:
        UsageError: the right answers are not known here.
        LateenError: as :func:`lateen.mllm.evaluate_questions` raises them.
    """
    check_scored(questions)
    before, after = (Path(swapped) / name for name in (BEFORE, AFTER))
    for model, folder in ((mllm, before), (swapped, after)):
        log.info("asking the model in %s", model)
        evaluate_questions(
            model, questions, out=folder, limit=limit, answered_by=answered_by,
            max_tokens=max_tokens, control=control,
        )  # fmt: skip
    return compare_answers(before, after, questions, out=after, labels=("before", "after"))


def check_scored(questions: QuestionSet) -> None:
    """See that answers to a set can be scored here, so that two models can be told apart by them.

    Args:
        questions: the set.

    Raises:
        UsageError: they cannot.
    """
    if not questions.can_be_scored:
        raise UsageError(
            f"answers to {questions.name} cannot be scored here, so that nothing can be compared",
            "Take a set and a split whose answers are published.",
        )


def _config(mllm: str | Path) -> Any:
    """The model's config, before its weights are read."""
    folder = Path(mllm).expanduser()
    loading = explained(
        f"the multimodal model {mllm} cannot be loaded", "Copy or build the whole folder again."
    )
    with quiet_transformers(), loading:
        return AutoConfig.from_pretrained(folder if folder.is_dir() else str(mllm))


def _opened(
    tower: str | Path | AlignedModel, needed: Needed, mllm: str | Path
) -> tuple[AlignedTower, Any]:
    """The new tower, with the old one's kind of tokens, layer and grid."""
    try:
        opened, image_processor = open_tower(
            tower, tokens=needed.tokens, layer=needed.layer, bare=needed.bare, grid=needed.grid
        )
    except (EncoderError, UsageError) as error:
        if "--" not in error.remedy:  # what is wrong is the tower alone
            raise
        raise ModelError(
            f"{_named(tower)} cannot give the tokens that the projector of {mllm} takes "
            f"({needed.kind}): {error.message}",
            REMEDY,
        ) from error
    opened.config.norm = needed.norm
    return opened, image_processor


def _named(tower: str | Path | AlignedModel) -> str:
    return "the model" if isinstance(tower, AlignedModel) else str(tower)


def _write(
    folder: Path, mllm: str | Path, new: AlignedTower, image_processor: Any, needed: Needed,
    name: str, images: TrainedOn | None,
) -> dict[str, Any]:  # fmt: skip
    """Load the model, swap, and write it; what its record says."""
    ready = MultimodalModel.from_pretrained(mllm, device="cpu")
    model = ready.model
    new.to(model.dtype)
    old_tower, old_processor = model.model.vision_tower, ready.processor.image_processor
    record = {**_described(ready, needed), **ready.record}
    entry = {
        "tower": record["tower"],
        **_unchanged(model),
        "tower_weights": {"before": tensors_hash(old_tower), "after": tensors_hash(new)},
        "stages": len(record.get("stages") or ()),
        "tokens": _moved(
            _tokens(old_tower, old_processor, model.config), _tokens(new, image_processor)
        ),
        "preprocessing": _preprocessing(old_processor, image_processor),
        "versions": library_versions(),
    }
    made = _with(ready, new, image_processor)
    _try(made)
    record |= {
        "tower": new.config.as_record(),
        "parameters": sum(each.numel() for each in made.model.parameters()),
        "swapped": [*record.get("swapped", ()), entry],
    }
    trained_on = ready.trained_on if images is None else images.after(ready.trained_on, name)
    write_model(folder, made.model, made.processor, record, name, trained_on)
    return record


def _described(ready: MultimodalModel, needed: Needed) -> dict[str, Any]:
    """What a record says at least, of a model that has none."""
    config = ready.model.config
    text = config.get_text_config()
    return {
        "tower": {
            "encoder": {"id": config.vision_config.model_type}, "tokens": needed.tokens,
            "layer": needed.layer, "head": None, "grid": needed.grid, "projection": False,
            "norm": needed.norm, "tokens_per_image": needed.count, "width": needed.width,
        },
        "llm": {"name": text.model_type, "width": text.hidden_size},
    }  # fmt: skip


def _unchanged(model: Any) -> dict[str, str]:
    """Hashes of what a swap leaves alone."""
    language = nn.ModuleDict({"model": model.model.language_model, "lm_head": model.lm_head})
    return {
        "language_model": tensors_hash(language),
        "projector": tensors_hash(model.model.multi_modal_projector),
    }


def _prove(folder: Path, entry: Mapping[str, Any]) -> None:
    """Read the written folder as whoever uses it does, and see that the parts are those of before.

    Raises:
        ModelError: one is not.
    """
    model = MultimodalModel.from_pretrained(folder, device="cpu").model
    found = {**_unchanged(model), "tower": tensors_hash(model.model.vision_tower)}
    expected = {**entry, "tower": entry["tower_weights"]["after"]}
    if changed := [name.replace("_", " ") for name in found if found[name] != expected[name]]:
        raise ModelError(
            f"the {' and the '.join(changed)} read back from the new folder are not what was "
            "written",
            "Look at the disk; nothing was put in --out.",
        )


@torch.no_grad()
def _tokens(tower: Any, image_processor: Any, config: Any = None) -> Tensor:
    """What a tower hands to the projector ``[pictures, tokens, width]``, of made-up pictures."""
    pictures = made_up_pictures(_PICTURES)
    pixels = image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    output = tower(pixels.to(tower.dtype), output_hidden_states=True)
    tokens: Tensor = output.hidden_states[config.vision_feature_layer if config else -1]
    if config is not None and config.vision_feature_select_strategy == "default":
        tokens = tokens[:, 1:]
    return tokens.float()


def _moved(old: Tensor, new: Tensor) -> dict[str, Any]:
    """How far the new tokens are from the old ones, beside how far another picture's are."""
    other = old.roll(1, 0)
    return {
        "same": torch.equal(old, new),
        "cosine": float(F.cosine_similarity(old, new, dim=-1).mean()),
        "another_picture": float(F.cosine_similarity(old, other, dim=-1).mean()),
        "rms": {"before": root_mean_square(old), "after": root_mean_square(new)},
        "pictures": len(old),
    }


def _preprocessing(old: Any, new: Any) -> dict[str, list[Any]]:
    """What is done otherwise to an image: the old setting and the new one, by name."""
    before, after = old.to_dict(), new.to_dict()
    names = sorted({*before, *after} - {*_NAMES})
    return {
        name: [before.get(name), after.get(name)]
        for name in names
        if before.get(name) != after.get(name)
    }


def _with(ready: MultimodalModel, new: AlignedTower, image_processor: Any) -> MultimodalModel:
    """The model with another tower; of the old one it keeps language model and projector.

    It is made anew, for one that was loaded remembers how the names of its tensors were changed,
    those of the old tower among them, and would save the new one's under wrong names.
    """
    old, processor = ready.model, ready.processor
    config = old.config
    config.vision_config = new.config
    config.vision_feature_layer, config.vision_feature_select_strategy = -1, "full"
    config.image_seq_length = new.config.num_tokens
    parts = old.model
    model = llava_of(
        config, new, parts.multi_modal_projector, parts.language_model, old.lm_head,
        old.generation_config,
    )  # fmt: skip
    processor.image_processor = image_processor
    processor.patch_size = new.config.patch_size
    processor.vision_feature_select_strategy = "full"
    processor.num_additional_image_tokens = new.config.additional_tokens
    return MultimodalModel(model, processor, ready.record)


@torch.no_grad()
def _try(ready: MultimodalModel) -> None:
    """One forward pass: as many placeholders as tokens, and numbers.

    Raises:
        ModelError: there are others, or NaN.
    """
    inputs = ready.inputs("What is this?", made_up_pictures(1))
    if not bool(ready.model(**inputs).logits.isfinite().all()):
        raise ModelError(
            "the language model gives NaN or infinity after an image of the new tower",
            "Look at the scale of its tokens.",
        )


def _keep_evaluations(out: Path, folder: Path, record: Mapping[str, Any]) -> None:
    """Take over what was evaluated in ``out``, if that is this very model: a run that was killed
    goes on with the same command."""
    earlier = out / RECORD
    if not earlier.is_file() or _lasting(read_json(earlier)) != _lasting(record):
        return
    for name in (AFTER, BEFORE):
        if (out / name).is_dir():
            shutil.copytree(out / name, folder / name, ignore=shutil.ignore_patterns(".*"))


def _lasting(record: Any) -> Any:
    """All of a record but the versions of libraries."""
    if isinstance(record, list):
        return [_lasting(each) for each in record]
    if isinstance(record, Mapping):
        return {name: _lasting(each) for name, each in record.items() if name != "versions"}
    return record


def _notes(record: Mapping[str, Any]) -> list[str]:
    """What has to be known of the last swap, in sentences without an end."""
    entry = record["swapped"][-1]
    tokens, weights, notes = entry["tokens"], entry["tower_weights"], []
    if weights["before"] == weights["after"]:
        notes.append("both towers have the very same weights: nothing is swapped")
    elif tokens["same"]:
        notes.append("both towers give the very same tokens of made-up pictures")
    if entry["preprocessing"]:
        changes = (f"{name} {old} → {new}" for name, (old, new) in entry["preprocessing"].items())
        notes.append(
            f"images are prepared as the new tower takes them, otherwise than before: "
            f"{', '.join(changes)}"
        )
    if tokens["cosine"] <= tokens["another_picture"]:
        notes.append(
            f"the new tokens are no nearer to the old ones (cosine {tokens['cosine']:.2f}) than "
            f"those of another picture are ({tokens['another_picture']:.2f}): the projector was "
            "not made for them, and has to be trained anew"
        )
    if record.get("projector") == UNTRAINED:
        notes.append("the projector is untrained: answers have nothing to do with the image")
    return notes
