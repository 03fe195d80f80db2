"""The encoders that an assessment compares: each layer and pooling a candidate of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from lateen.assessment.recipe import TextCandidate, VisionCandidate
from lateen.data import Dataset
from lateen.encoders import Encoder, FusedEncoder, Modality, load_views, load_with
from lateen.encoders.openai_server import is_server
from lateen.encoders.own import is_factory
from lateen.errors import RecipeError
from lateen.experiment.stages import fused_store, view_stores
from lateen.features import Store
from lateen.files import content_key

Section = VisionCandidate | TextCandidate
_KEY = 64  # hex digits of a content key


@dataclass(frozen=True)
class Candidate:
    """One way to turn images, or texts, into features; and those features.

    Attributes:
        name: the encoder, short, as people call it.
        label: the name with what tells this candidate from the others of that name; unique.
        pooling: of the encoder, where it is known.
        layer: hidden layer, ``None`` for the output.
        stores: by split; of texts, one for each caption column.
        baseline: whether it only stands for knowing nothing.
        score: a figure of the user's own, of a text encoder.
    """

    name: str
    label: str
    pooling: str | None
    layer: int | None
    stores: Mapping[str, tuple[Store, ...]]
    baseline: bool = False
    score: float | None = None

    @property
    def networks(self) -> tuple[str, ...]:
        """What tells its networks from others, of each part where it is fused; of all layers and
        poolings of a network the same."""
        info = next(iter(self.stores.values()))[0].manifest.description.encoder
        parts = info.get("preprocessing", {}).get("fused") or [info]
        names = str(info["id"]).split(" + ") if len(parts) > 1 else [info["id"]]
        return tuple(map(_network, names, parts))

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return next(iter(self.stores.values()))[0].dim


def _network(name: str, info: Mapping[str, Any]) -> str:
    """Weights by their content; of a hand-written or imported encoder no more than its name."""
    weights = str(info.get("weights"))
    return weights if len(weights) == _KEY else f"{Path(name).name}@{weights}"


@dataclass(frozen=True)
class Split:
    """What is to be encoded under one name.

    Attributes:
        name: of the split.
        dataset: its samples.
        columns: its caption columns; none where only images count.
    """

    name: str
    dataset: Dataset
    columns: tuple[str, ...] = ()


def encode_candidates(
    sections: Sequence[Section], modality: Modality, splits: Sequence[Split], root: Path, out: Path
) -> list[Candidate]:
    """The sections' candidates with their features of every split.

    The encoders are loaded one after the other, and each is run once for all its layers and
    poolings; what is in ``out`` already is not run again.

    Args:
        sections: encoders, with the poolings and layers of each.
        modality: of all.
        splits: what to encode.
        root: the folder that an encoder's folder may be relative to.
        out: the folder of the stores.

    Raises:
        EncoderError: one cannot be loaded, or has no such pooling or layer.
        RecipeError: two candidates are called the same.
        DataError: there is nothing to encode in a split.
    """
    numbered: list[tuple[int, Candidate]] = []
    for members in _by_network(sections).values():
        views = [
            (index, view) for index in members for view in _poolings_and_layers(sections[index])
        ]
        first = sections[members[0]]
        encoders = _load_encoders(first, [view for _, view in views], modality, root)
        keys = Counter(encoder.info.key for encoder in encoders)
        if len(keys) < len(encoders):
            raise RecipeError(
                f"a pooling and layer of {first.encoder} is listed twice", "List each once."
            )
        stores = {
            split.name: _encode_split(encoders, first, split, modality, out) for split in splits
        }
        for number, (index, _) in enumerate(views):
            own = {name: columns[number] for name, columns in stores.items()}
            numbered.append((index, _candidate(sections[index], encoders[number], own)))
    return named_apart([candidate for _, candidate in sorted(numbered, key=lambda pair: pair[0])])


def _by_network(sections: Sequence[Section]) -> dict[str, list[int]]:
    """Indices of the sections that are views of one network, so that it is loaded and run once."""
    families: dict[str, list[int]] = {}
    for index, section in enumerate(sections):
        apart = {"name", "pooling", "layer", "baseline", "score"}
        key = content_key([section.model_dump(mode="json", exclude=apart)])
        families.setdefault(f"{index}" if section.fuse else key, []).append(index)
    return families


def _poolings_and_layers(section: Section) -> list[tuple[str | None, int | None]]:
    return list(product(section.pooling, section.layer))


def _candidate(
    section: Section, encoder: Encoder, stores: Mapping[str, tuple[Store, ...]]
) -> Candidate:
    info = encoder.info
    name = section.name or _encoder_name(section, encoder)
    baseline = section.baseline or section.untrained
    score = section.score if isinstance(section, TextCandidate) else None
    return Candidate(name, "", info.pooling, info.layer, stores, baseline, score)


def _load_encoders(
    section: Section, views: Sequence[tuple[str | None, int | None]], modality: Modality, root: Path
) -> list[Encoder]:
    encoders = load_views(section.found_below(root), modality, views, section.options())
    if not section.fuse:
        return encoders
    parts = [load_with(part.found_below(root), modality, part.options()) for part in section.fuse]
    return [FusedEncoder([*encoders, *parts], [1.0, *(part.weight for part in section.fuse)])]


def _encoder_name(section: Section, encoder: Encoder) -> str:
    if section.fuse or is_factory(section.encoder) or is_server(section.encoder):
        return encoder.info.id
    name = Path(section.encoder).name
    return f"{name} untrained" if section.untrained else name


def _encode_split(
    encoders: Sequence[Encoder], section: Section, split: Split, modality: Modality, out: Path
) -> list[tuple[Store, ...]]:
    """For each encoder the stores of a split: of images one, of texts one for each column."""
    columns = split.columns if modality == "text" else (None,)
    by_column = [_encode_column(encoders, section, split, column, out) for column in columns]
    return list(zip(*by_column, strict=True))


def _encode_column(
    encoders: Sequence[Encoder], section: Section, split: Split, column: str | None, out: Path
) -> list[Store]:
    name = f"{split.name}-vision" if column is None else f"{split.name}-text-{column}"
    # One encoder may be listed with both number formats, which are two stores.
    end = "" if section.dtype == "float16" else f"-{section.dtype}"
    where = (section.dtype, out, name, column)
    first = encoders[0]
    if isinstance(first, FusedEncoder):
        return [fused_store(split.dataset, first, *where, end=end)]
    return view_stores(split.dataset, encoders, *where, end=end)


def named_apart(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with labels that say no more than tells them apart.

    Raises:
        RecipeError: two candidates are called the same.
    """
    poolings = {c.name: {o.pooling for o in candidates if o.name == c.name} for c in candidates}

    def label(candidate: Candidate) -> str:
        words = [candidate.name]
        if len(poolings[candidate.name]) > 1:
            words.append(str(candidate.pooling))
        if candidate.layer is not None:
            words.append(f"layer {candidate.layer}")
        return " · ".join(words)

    result = [replace(candidate, label=label(candidate)) for candidate in candidates]
    labels = Counter(candidate.label for candidate in result)
    twice = next((name for name, count in labels.items() if count > 1), None)
    if twice is not None:
        raise RecipeError(
            f"{labels[twice]} candidates are called {twice!r}",
            "Leave out what is listed twice, or give each a name (name: … in a recipe).",
        )
    return result
