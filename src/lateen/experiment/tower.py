"""What a run does after training where its text encoder was trained, too (LiT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lateen.align.heads import AlignmentHeads
from lateen.align.tower import TextTower
from lateen.data import Dataset, Sample, Skip
from lateen.encoders import Encoder, TextEncoder, load_encoder
from lateen.experiment.stages import encoder_options, split_dataset, text_store
from lateen.files import content_key
from lateen.model.saving import save_trained_encoder
from lateen.recipe import Recipe, TextSection
from lateen.store import Pairs, pair


def save_tower(
    heads: AlignmentHeads, original: TextEncoder, section: TextSection, folder: Path
) -> Encoder:
    """Take a trained tower apart: its head stays in ``heads``, its encoder becomes one like any.

    Args:
        heads: with a :class:`~lateen.align.tower.TextTower` for texts.
        original: the encoder that the tower's began as.
        section: how to load it.
        folder: of the model, in which the encoder is saved.

    Returns:
        The trained encoder, loaded from there.
    """
    tower = cast(TextTower, heads.text)
    place = folder / "text_encoder"
    save_trained_encoder(tower.network, original, place)
    heads.text = tower.head
    encoder = load_encoder(str(place), "text", **encoder_options(section))
    encoder.info = replace(encoder.info, id=original.info.id)
    return encoder


def trained_side(text: Encoder, section: TextSection) -> dict[str, Any]:
    """What a model must remember of its trained text encoder."""
    return {**text.info.as_dict(), "dtype": section.dtype, "trained": True}


def held_out_features(
    splits: Mapping[str, Pairs], text: Encoder, plan: Recipe, folder: Path
) -> dict[str, Pairs]:
    """The same splits with features of their first caption column in place of token ids.

    Args:
        splits: those that are evaluated on.
        text: the trained encoder.
        plan: names the splits.
        folder: of the stores.
    """
    return {
        name: pair(
            pairs.image,
            text_store(
                _Only(split_dataset(plan.data, name), frozenset(pairs.ids)), text, plan, folder,
                name, pairs.texts[0].store.name,
            ),
            missing="drop",
        )
        for name, pairs in splits.items()
    }  # fmt: skip


class _Only:
    """The samples of a dataset that have one of some ids, and its skips."""

    def __init__(self, dataset: Dataset, ids: frozenset[str]) -> None:
        self.name, self.columns = dataset.name, dataset.columns
        self.fingerprint = content_key([dataset.fingerprint, sorted(ids)])
        self._kept = [s for s in dataset if isinstance(s, Skip) or s.id in ids]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Sample | Skip]:
        return iter(self._kept)
