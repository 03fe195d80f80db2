"""A tuned model, saved in the form that it came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lateen.encoders import Encoder, load_encoder
from lateen.encoders.vision import VisionEncoder
from lateen.model import AlignedModel, CardResult
from lateen.model.clip import is_clip
from lateen.model.clip_saving import save_tuned_clip, tower_tensors
from lateen.model.saving import save_trained_encoder
from lateen.model.trained_on import TrainedOn


def save_tuned(
    model: AlignedModel, source: str, folder: Path, record: TrainedOn, before: TrainedOn | None,
    training: Mapping[str, Any], results: Sequence[CardResult] = (),
) -> None:  # fmt: skip
    """Write a tuned model: a CLIP as a folder of transformers, an AlignedModel with its encoder.

    A model whose tower was replaced, and not trained, is an AlignedModel that names both encoders.

    Args:
        model: with the tuned tower.
        source: folder or hub id of the model that was tuned.
        folder: where to.
        record: of the images that it was tuned on.
        before: the record of the model that was tuned, if it has one; both are joined.
        training: conditions of the tuning.
        results: for the card.

    Raises:
        ModelError: it cannot be saved.
        EncoderError: the files of its tower are not where they were.
    """
    encoder, side = model.vision_encoder, model.config.vision or {}
    if side.get("trained") and is_clip(source):
        assert isinstance(encoder, VisionEncoder)
        save_tuned_clip(
            source, _dual_tensors(encoder), folder, revision=encoder.info.load.get("revision"),
            trained_on=record, training=training, results=results,
        )  # fmt: skip
        return
    if side.get("trained"):
        assert isinstance(encoder, VisionEncoder)
        encoder = _saved_tower(encoder, folder / "vision_encoder")
        side = {**side, **encoder.info.as_dict()}
    # What was measured of the model before is not true of it any more.
    conditions = {**(model.config.training or {}), "validation": None, "tuned": dict(training)}
    tuned = AlignedModel.build(
        model.heads, side, model.config.text or {}, model.config.head or {}, training=conditions,
        trained_on=record.after(before, source),
    )  # fmt: skip
    tuned.set_encoders(vision=encoder, text=model.text_encoder)
    tuned.save_pretrained(folder, results=results)


def _saved_tower(encoder: VisionEncoder, folder: Path) -> Encoder:
    """Write an encoder with trained weights, and load it from there under the name that it had."""
    load = dict(encoder.info.load)
    revision = load.pop("revision", None)
    if encoder.network.dual is not None:
        save_tuned_clip(str(load["name"]), _dual_tensors(encoder), folder, revision=revision)
    else:
        pooler = () if encoder.layout.pooler else ("pooler.",)
        save_trained_encoder(encoder.network.model, encoder, folder, without=pooler)
    loaded = load_encoder(modality="image", **{**load, "name": str(folder)})
    loaded.info = replace(loaded.info, id=encoder.info.id)
    return loaded


def _dual_tensors(encoder: VisionEncoder) -> dict[str, Any]:
    """The tensors of a dual model's image tower by their own names."""
    state = encoder.network.dual.state_dict()
    return {name: state[name].cpu() for name in tower_tensors(state)}
