"""A ready CLIP whose image tower was tuned, saved in the form that it came in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.encoders.resolve import resolve
from lateen.encoders.weights import load_as_stored, quiet_transformers
from lateen.errors import ModelError, choices
from lateen.files import atomic_folder, refuse_foreign
from lateen.model.card import CardResult, ClipCard, title_of, write_clip_card
from lateen.model.clip import is_clip
from lateen.model.saving import WEIGHTS, copy_all_but_weights, share_files
from lateen.model.trained_on import TRAINED_ON, TrainedOn

_TOWER = ("vision_model.", "visual_projection.")  # SigLIP has no projection
_CONFIG = "config.json"


def save_tuned_clip(
    source: Path | str,
    vision: Mapping[str, Tensor],
    out: Path,
    *,
    revision: str | None = None,
    trained_on: TrainedOn | None = None,
    training: Mapping[str, Any] | None = None,
    results: Sequence[CardResult] = (),
) -> None:
    """Write a dual-tower model of transformers with a tuned image tower, and all else as it was.

    The folder loads with the model's own class alone (``CLIPModel.from_pretrained``). Config,
    tokenizer, image processor and licence files are the source's. Every tensor is in the number
    format of the source's file: those that were not tuned are the same to the bit, and tuned ones
    are rounded to it, so that a float16 model stays one.

    Args:
        source: the model that was tuned: a folder, or a hub id.
        vision: every tensor of the image tower, tuned or not, by the model's own names:
            ``vision_model.…`` and, where it has one, ``visual_projection.weight``.
        out: the folder; a model that is in it is replaced, with all that lies there.
        revision: hub commit of the source, as the ``load`` of its encoders has it.
        trained_on: hashes of the images that it was tuned on; those in the source's own record, if
            it has one, are joined with them.
        training: conditions of the tuning, for the card.
        results: for the card.

    Raises:
        ModelError: ``source`` is no dual-tower model or lies with ``out`` in one folder; ``vision``
            lacks tensors, or has unknown ones, other shapes, NaN, or values beyond the format.
        EncoderError: the source is not there, or not whole.
        LateenError: ``out`` holds something else, or the disk is full.
    """
    out = Path(out)
    found = resolve(str(source), revision)
    if not is_clip(found.folder):
        raise ModelError(
            f"{source} is no dual-tower model of transformers",
            "Give a CLIP or SigLIP; an AlignedModel is saved with save_pretrained.",
        )
    _check_apart(found.folder, out)
    refuse_foreign(out, "the folder of a model", (WEIGHTS,), error=ModelError)
    model = load_as_stored(found.folder)
    _replace(model, vision, str(source))
    with atomic_folder(out) as folder:
        copy_all_but_weights(found.folder, folder)
        config = (folder / _CONFIG).read_bytes()
        with quiet_transformers():
            model.save_pretrained(folder)
        (folder / _CONFIG).write_bytes(config)  # transformers adds its version and one dtype
        load = {"name": str(source), "revision": found.revision}
        write_clip_card(folder, _card(model, out), load, found.folder, training, results)
        _save_record(folder, found.folder, trained_on)
        share_files(folder)


def tower_tensors(names: Iterable[str]) -> list[str]:
    """Which of a dual-tower model's tensors are of its image tower, with its projection."""
    return [name for name in names if name.startswith(_TOWER)]


def _check_apart(source: Path, out: Path) -> None:
    whole = out.expanduser().resolve()
    if whole == source or whole in source.parents or source in whole.parents:
        raise ModelError(
            f"{out} and the model that was tuned, in {source}, lie in one folder",
            "Save the tuned model elsewhere.",
        )


def _replace(model: Any, vision: Mapping[str, Tensor], source: str) -> None:
    """Put the tuned tensors into the model.

    Raises:
        ModelError: they are not those of its image tower.
    """
    state = model.state_dict()
    tower = {name: state[name] for name in tower_tensors(state)}
    if unknown := sorted(vision.keys() - tower.keys()):
        raise ModelError(
            f"the image tower of {source} has no tensor {_listed(unknown)}",
            choices(unknown[0], sorted(tower)[:6]),
        )
    if missing := sorted(tower.keys() - vision.keys()):
        raise ModelError(
            f"of the image tower of {source}, {_listed(missing)} is not given",
            "Give every tensor of the tower, also those that were not tuned.",
        )
    for name, tensor in tower.items():
        given = vision[name].detach()
        if given.shape != tensor.shape:
            raise ModelError(
                f"the tuned {name!r} has shape {list(given.shape)}, that of {source} "
                f"{list(tensor.shape)}",
                "Give the tower that was made from this model.",
            )
        stored = given.to("cpu", tensor.dtype)
        if not stored.isfinite().all():
            kind = str(tensor.dtype).removeprefix("torch.")
            beyond = bool(given.isfinite().all())
            raise ModelError(
                f"the tuned {name!r} has values that {kind}, in which {source} is kept, cannot hold"
                if beyond else f"the tuned {name!r} has NaN or infinity in it",
                f"Tune a copy of {source} that is kept in float32." if beyond
                else "Its training diverged: take an earlier checkpoint.",
            )  # fmt: skip
        with torch.no_grad():
            tensor.copy_(stored)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:4]))
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _card(model: Any, out: Path) -> ClipCard:
    kind = type(model).__name__
    formats = sorted({str(each.dtype).removeprefix("torch.") for each in model.parameters()})
    return ClipCard(
        title=title_of(out),
        library="transformers",
        about="whose image tower was tuned on images without captions. The text side, with its "
        "projection, the scale and the preprocessing are as they were, and so every text has the "
        f"embedding that it had. Its tensors are {' and '.join(formats)}, as before.",
        code=f"from transformers import AutoProcessor, {kind}\n\n"
        f'model = {kind}.from_pretrained("path/to/this/folder")\n'
        'processor = AutoProcessor.from_pretrained("path/to/this/folder")',
        tuned=True,
    )  # fmt: skip


def _save_record(folder: Path, source: Path, trained_on: TrainedOn | None) -> None:
    path = source / TRAINED_ON
    record = TrainedOn.load(path) if path.is_file() else None
    if trained_on is not None:
        record = trained_on.after(record, str(source))
    if record is not None:
        record.save(folder / TRAINED_ON)
