"""Layers that a recipe leaves to lateen (``best``, ``auto``): chosen on training pairs alone.

``layer: best`` takes the layers whose neighbours agree most (mutual kNN on up to 5,000 pairs, k by
Rice's rule: STRUCTURE, NeurIPS 2025, arXiv:2506.16895). ``fuse: auto`` takes those that add most in
closed form (:mod:`lateen.training.selection`). All layers of a network come from one pass over the
training split, and those that are chosen have their stores then. What comes out is a recipe that
names every layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lateen.data import Dataset
from lateen.encoders import SIDES, Encoder, LayeredEncoder, Side, load_parts, modality_of
from lateen.encoders.config import EncoderConfig, FusedPart, FusedText, TextSection, VisionSection
from lateen.encoders.own import is_factory
from lateen.errors import DataError, EncoderError
from lateen.experiment.preflight import open_split, split_columns
from lateen.experiment.recipe import Recipe
from lateen.experiment.stages import (
    default_holdout,
    load_side,
    side_store,
    stores_by_network,
    training_pairs,
)
from lateen.features import CaptionMeans, Pairs, Store
from lateen.features.pairs import pair_grid
from lateen.files import content_key, read_json, write_json
from lateen.metrics import mutual_knn, nearest_neighbours
from lateen.progress import log
from lateen.training.config import LONGEST_CCA
from lateen.training.ranks import present
from lateen.training.selection import Joined, SideFeatures, select_features

_VERSION = 2  # of the rules by which is chosen
_PAIRS = 5000
_FEWEST = 50
_JUDGED = 0.2  # of the pairs decide what adds most; canonical directions are fitted on the others
_ERRORS = 1.0  # standard errors that a gain must have; of held-out photographs (docs/results.md)
_MOST = 8  # features on a side
_TOLD = 3  # runners-up
_LAST_ALONE = ("pooler", "projection")  # poolings that hidden layers do not have


@dataclass(frozen=True)
class _Option:
    """A feature that may be chosen.

    Attributes:
        section: names its encoder.
        encoder: gives it.
        store: has it, of the training split.
    """

    section: EncoderConfig
    encoder: Encoder
    store: Store

    @property
    def keys(self) -> dict[str, Any]:
        """What a section must say to have it: a hidden layer's pooling is named."""
        layer, pooling = self.encoder.info.layer, self.encoder.info.pooling
        if layer is None:
            return {"layer": None}
        return {"layer": layer, "pooling": pooling}

    @property
    def label(self) -> str:
        """In a few words."""
        name, layer = Path(self.section.encoder).name, self.encoder.info.layer
        return f"{name} {'output' if layer is None else f'layer {layer}'}"


Options = Mapping[Side, Sequence[_Option]]


def open_layers(plan: Recipe) -> list[str]:
    """The keys of a recipe that leave layers to lateen, with their values, as people write them."""
    words = {"layer": "layer: best", "fuse": "fuse: auto"}
    asked = {side: getattr(plan, side).undecided for side in SIDES}
    return [f"{side}.{words[key]}" for side, key in asked.items() if key]


def outputs_alone(plan: Recipe) -> Recipe:
    """The recipe with encoders' outputs in place of the layers that it leaves open, or as it is."""

    def settled(section: VisionSection | TextSection) -> VisionSection | TextSection:
        if section.undecided == "layer":
            return section.model_copy(update={"layer": None})
        if section.undecided == "fuse":
            return section.model_copy(update={"fuse": section.candidates, "candidates": ()})
        return section

    return plan.model_copy(update={side: settled(getattr(plan, side)) for side in SIDES})


def settle_layers(
    plan: Recipe, folder: Path, opened: Mapping[str, Dataset] | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with every layer named that it leaves open, and how they were chosen.

    Where it leaves none open, it is returned as it is. What was chosen before, of the same features
    by the same rules, is not chosen again.

    Args:
        plan: a recipe with absolute paths.
        folder: of the stores, and of what was chosen.
        opened: datasets of splits that were opened before.

    Raises:
        EncoderError: an encoder has no layers to choose from, or its pooling has none.
        DataError: too few pairs to choose by.
    """
    if not open_layers(plan):
        return plan, {}
    sections: dict[Side, VisionSection | TextSection] = {"vision": plan.vision, "text": plan.text}
    dataset = (opened or {}).get("train") or open_split(plan.data, plan.data.train, "train")
    column = split_columns(plan.data, dataset)[0]
    options: Options = {
        "vision": _options(plan.vision, "vision", dataset, folder, None),
        "text": _options(plan.text, "text", dataset, folder, column),
    }
    grid = _deciding_pairs(plan, options)
    decides = [
        _VERSION, [sections[side].undecided for side in SIDES], grid[0][0].key,
        [[option.encoder.info.key for option in options[side]] for side in SIDES],
    ]  # fmt: skip
    path = folder / f"layers-{content_key(decides)[:16]}.json"

    def choose() -> dict[str, Any]:
        if not path.is_file():
            write_json(path, _choose(sections, options, grid))
        chosen: dict[str, Any] = read_json(path)
        return chosen

    chosen = present().in_turn(choose)
    for line in chosen["told"].values():
        log.info("%s", line)
    update: dict[str, Any] = {
        side: _settled(section, [options[side][index] for index in chosen[side]])
        for side, section in sections.items()
    }
    settled = plan.model_copy(update=update)
    return settled, {
        **{k: v for k, v in chosen.items() if k not in SIDES},
        "images": len(grid[0][0]),
    }


def _options(
    section: VisionSection | TextSection, side: Side, dataset: Dataset, folder: Path,
    column: str | None,
) -> list[_Option]:  # fmt: skip
    """What a side may take: one feature that is named, or every layer. All are encoded."""
    name = "train-vision" if column is None else f"train-text-{column}"
    if section.undecided is None:
        encoder = load_side(section, side)
        return [
            _Option(section, encoder, side_store(dataset, encoder, section, folder, name, column))
        ]
    named: list[EncoderConfig] = [section, *section.candidates]
    # The first entry's layer is where to begin; that of a candidate is all that it offers.
    settings = [replace(section.options(), layer=None)]
    settings += [each.options() for each in section.candidates]
    bases = load_parts(
        [(each.encoder, modality_of(side), own) for each, own in zip(named, settings, strict=True)]
    )
    offered = [[base, *(_layers(base) if base.info.layer is None else [])] for base in bases]
    begun = section.layer if isinstance(section.layer, int) else None
    if sum(map(len, offered)) == 1 or (begun is not None and len(offered[0]) == 1):
        key = f"{side}.fuse: auto" if section.undecided == "fuse" else f"{side}.layer: best"
        raise EncoderError(
            f"{bases[0].info.id} has no hidden layers to choose from, which {key} asks for",
            f"Leave {side}.{section.undecided if begun is None else 'layer'} out.",
        )
    if begun is not None:
        first = _layer(bases[0], begun)
        offered[0] = [first, *(view for view in offered[0] if view.info != first.info)]
    views = [(each, view) for each, own in zip(named, offered, strict=True) for view in own]
    stores = stores_by_network(
        dataset, [view for _, view in views], section.dtype, folder, name, column
    )
    return [_Option(*view, store) for view, store in zip(views, stores, strict=True)]


def _layers(encoder: Encoder) -> list[Encoder]:
    """A view of every hidden layer of an encoder, if it has any."""
    if not isinstance(encoder, LayeredEncoder) or is_factory(encoder.info.load.get("name", "")):
        return []  # what is code of its own is loaded without options, and so without a layer
    pooling = encoder.info.pooling
    if pooling in _LAST_ALONE:
        log.info("%s: hidden layers by the mean, as pooling %s is of the output alone",
                 encoder.info.id, pooling)  # fmt: skip
    return [_layer(encoder, layer) for layer in encoder.layers()]


def _layer(encoder: Encoder, layer: int) -> Encoder:
    """A hidden layer of an encoder that has some: by its pooling, or by the mean where that has
    none."""
    assert isinstance(encoder, LayeredEncoder)
    return encoder.view("mean" if encoder.info.pooling in _LAST_ALONE else None, layer)


def _deciding_pairs(plan: Recipe, options: Options) -> list[list[Pairs]]:
    """Pairs of every option of images with every option of captions, of the first caption column.

    They are of the training split, at most 5,000, and none of those that are held out to choose the
    step.

    Raises:
        DataError: there are too few.
    """
    grid = pair_grid(
        [option.store for option in options["vision"]],
        [[option.store] for option in options["text"]], missing="drop",
    )  # fmt: skip
    first, seed = grid[0][0], plan.data.holdout_seed
    rows = np.arange(len(first))
    if plan.data.validation is None and len(rows) > 1:
        rows, _ = first.holdout_positions(plan.data.holdout or default_holdout(len(first)), seed)
    drawn = [
        [training_pairs(pairs.take(rows), plan.data, plan.train.seed) for pairs in row]
        for row in grid
    ]
    count = len(drawn[0][0])
    if count < _FEWEST:
        raise DataError(
            f"{count} training images are too few to choose layers by",
            f"Name the layers, or give {_FEWEST} images or more.",
        )
    some = np.arange(count)
    if count > _PAIRS:
        _, some = drawn[0][0].holdout_positions(_PAIRS / count, seed)
    return [[replace(pairs, texts=pairs.texts[:1]).take(some) for pairs in row] for row in drawn]


def _choose(
    sections: Mapping[Side, VisionSection | TextSection], options: Options,
    grid: Sequence[Sequence[Pairs]],
) -> dict[str, Any]:  # fmt: skip
    """Positions of the options that are taken on either side, the numbers, and them in words."""
    asked = {side: section.undecided for side, section in sections.items()}
    best: dict[Side, int] = {"vision": 0, "text": 0}
    result: dict[str, Any] = {"told": {}}
    if "layer" in asked.values():
        looked: dict[Side, int] = {
            side: len(options[side]) if asked[side] == "layer" else 1 for side in SIDES
        }
        ranking, k = _by_neighbours(grid, looked)
        best = {"vision": ranking[0][0], "text": ranking[0][1]}
        told = _told_best(ranking, k, asked, options, len(grid[0][0]))
        result["best"], result["told"]["best"] = told
    chosen: dict[str, list[int]] = {side: [index] for side, index in best.items()}
    if "fuse" in asked.values():
        begun, steps, judged = _by_gain(grid, best, asked)
        for step in steps:
            chosen[step.joined[0]].append(step.joined[1])
        told = _told_auto(begun, steps, asked, options, judged)
        told = told[0], told[1] + _left_out(asked, options, chosen)
        result["auto"], result["told"]["auto"] = told
    return {**result, **chosen}


def _by_neighbours(
    grid: Sequence[Sequence[Pairs]], looked: Mapping[Side, int]
) -> tuple[list[tuple[int, int, float]], int]:
    """Options of images and of captions with their mutual kNN, highest first, and k.

    Of equals the earlier comes first: outputs stand before hidden layers.
    """
    n = len(grid[0][0])
    k = math.ceil(2 * n ** (1 / 3))  # Rice's rule
    images = [
        nearest_neighbours(grid[i][0].image_features(np.arange(n)), k)
        for i in range(looked["vision"])
    ]
    texts = [nearest_neighbours(CaptionMeans(grid[0][j].texts[0])[0:n], k)
             for j in range(looked["text"])]  # fmt: skip
    scored = [(i, j, mutual_knn(x, y)) for i, x in enumerate(images) for j, y in enumerate(texts)]
    return sorted(scored, key=lambda each: -each[2]), k


def _by_gain(
    grid: Sequence[Sequence[Pairs]], first: Mapping[Side, int], asked: Mapping[Side, str | None]
) -> tuple[float, list[Joined], int]:
    """The score to begin with, the features that join, and how many images judged."""
    sides: list[Side] = [side for side in SIDES if asked[side] == "fuse"]
    fit, judged = grid[0][0].holdout_positions(_JUDGED)

    def features(rows: np.ndarray[Any, Any]) -> SideFeatures:
        owner = grid[0][0].take(rows).texts[0].owner
        return SideFeatures(
            [row[0].take(rows).image_features(slice(None)) for row in grid],
            [pairs.take(rows).all_texts()[0] for pairs in grid[0]],
            torch.from_numpy(owner),
        )

    begun, steps = select_features(
        features(fit), features(judged), (first["vision"], first["text"]),
        sides=sides, errors=_ERRORS, most=_MOST, longest=LONGEST_CCA,
    )  # fmt: skip
    return begun, steps, len(judged)


def _told_best(
    ranking: Sequence[tuple[int, int, float]], k: int, asked: Mapping[Side, str | None],
    options: Options, images: int,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """What was best and the runners-up, as JSON and in a line."""

    def name(i: int, j: int) -> str:
        return f"{options['vision'][i].label} × {options['text'][j].label}"

    rows = [{"layers": name(i, j), "mutual_knn": score} for i, j, score in ranking]
    keys = " and ".join(f"{side}.layer" for side in SIDES if asked[side] == "layer")
    then = ", ".join(f"{r['layers']} {r['mutual_knn']:.3f}" for r in rows[1 : 1 + _TOLD])
    line = (
        f"{keys} best: {rows[0]['layers']}, mutual kNN {rows[0]['mutual_knn']:.3f} on {images} "
        f"training images (k = {k}); then {then}"
    )
    return {"k": k, "ranking": rows}, line


def _told_auto(
    begun: float, steps: Sequence[Joined], asked: Mapping[Side, str | None], options: Options,
    judged: int,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """What joined and what did not, as JSON and in a line."""
    rows = [
        {
            "joined": options[step.joined[0]][step.joined[1]].label, "gain": step.gain,
            "error": step.error, "score": step.score,
        }
        for step in steps
    ]  # fmt: skip
    keys = " and ".join(f"{side}.fuse" for side in SIDES if asked[side] == "fuse")
    joined = ", ".join(f"{r['joined']} (+{r['gain']:.1f} ± {r['error']:.1f})" for r in rows)
    last = rows[-1]["score"] if rows else begun
    line = (
        f"{keys} auto: {joined or 'nothing'} joined; mean R@1/5/10 of canonical directions "
        f"{begun:.1f} → {last:.1f} on {judged} training images apart from those fitted on"
    )
    return {"begun": begun, "steps": rows, "judged": judged}, line


def _left_out(
    asked: Mapping[Side, str | None], options: Options, chosen: Mapping[str, Sequence[int]]
) -> str:
    """Which sides could not get everything because they would be too long, in words."""
    sides = []
    for side in SIDES:
        dims = [option.store.dim for option in options[side]]
        values = sum(dims[index] for index in chosen[side])
        others = [dim for index, dim in enumerate(dims) if index not in chosen[side]]
        if asked[side] == "fuse" and any(values + dim > LONGEST_CCA for dim in others):
            sides.append(f"{side} has {values:,} values")
    limit = (
        f"; a side gets no more than the {LONGEST_CCA:,} values that the closed form is for, and "
    )
    return limit + " and ".join(sides) if sides else ""


def _settled(
    section: VisionSection | TextSection, taken: Sequence[_Option]
) -> VisionSection | TextSection:
    """A section that names what was taken."""
    if section.undecided is None:
        return section
    first, *others = taken
    if section.undecided == "layer":
        return section.model_copy(update=first.keys)
    kind = FusedPart if isinstance(section, VisionSection) else FusedText
    parts = tuple(
        kind(**{k: v for k, v in option.section.model_dump().items() if k in kind.model_fields}
             | option.keys)
        for option in others
    )  # fmt: skip
    return section.model_copy(update={**first.keys, "fuse": parts, "candidates": ()})
