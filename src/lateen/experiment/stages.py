"""What every experiment begins with: a recipe's encoders, and the features of its splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from lateen.data import Dataset, ListDataset, Skip
from lateen.encoders import (
    Encoder,
    FusedEncoder,
    Side,
    TextEncoder,
    TokenEncoder,
    load_parts,
    load_with,
    modality_of,
    shared_passes,
    trainable,
)
from lateen.encoders.config import FusedPart, FusedText, TextSection, VisionSection
from lateen.encoders.own import is_factory
from lateen.errors import DataError
from lateen.experiment.preflight import (
    SPLITS,
    UNPAIRED,
    open_split,
    open_unpaired,
    split_columns,
    split_dataset,
)
from lateen.experiment.recipe import DataSection, Recipe
from lateen.features import Pairs, Share, Store, encode_views, fuse, pair
from lateen.features.encode import missing_views
from lateen.features.manifest import MANIFEST, PLAN, FeatureDtype, StoredDtype
from lateen.files import content_key, read_json
from lateen.model.saving import save_trained_encoder
from lateen.progress import log
from lateen.training.heads import AlignmentHeads
from lateen.training.lit import TextTower
from lateen.training.ranks import present

_FEWEST_HELD_OUT, _MOST_HELD_OUT, _LARGEST_SHARE = 200, 10_000, 0.4
_EARLIER = 0.05
EncoderSection = VisionSection | FusedPart | TextSection | FusedText


def save_tower(
    heads: AlignmentHeads, original: TextEncoder, section: TextSection, folder: Path
) -> Encoder:
    """Take a trained tower apart: its head stays in ``heads``, its encoder becomes one like any.

    Args:
        heads: with a :class:`~lateen.training.lit.TextTower` for texts.
        original: the encoder that the tower's began as.
        section: how to load it.
        folder: of the model, in which the encoder is saved.

    Returns:
        The trained encoder, loaded from there.
    """
    tower = cast(TextTower, heads.text)
    path = folder / "text_encoder"
    save_trained_encoder(tower.network.model, original, path)
    heads.text = tower.head
    encoder = load_with(str(path), "text", section.options())
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
                _only(split_dataset(plan.data, name), pairs.ids), text, plan, folder,
                name, pairs.texts[0].store.name,
            ),
            missing="drop",
        )
        for name, pairs in splits.items()
    }  # fmt: skip


def _only(dataset: Dataset, ids: Sequence[str]) -> ListDataset:
    """The samples of a dataset that have one of some ids, and its skips."""
    chosen = frozenset(ids)
    samples = [item for item in dataset if isinstance(item, Skip) or item.id in chosen]
    fingerprint = content_key([dataset.fingerprint, sorted(chosen)])
    return ListDataset(dataset.name, samples, fingerprint, dataset.columns)


def load_encoders(plan: Recipe) -> tuple[Encoder, Encoder]:
    """The recipe's vision and text encoders, each fused with the further ones if it names any; a
    text encoder that is to be trained is in float32.

    Raises:
        EncoderError: one cannot be loaded, or the text encoder cannot be trained.
    """
    vision, section = load_side(plan.vision, "vision"), plan.text
    if section.train and not is_factory(section.encoder):
        section = section.model_copy(update={"precision": "float32"})
    text = load_side(section, "text")
    return vision, trainable(text) if section.train else text


def load_side(section: VisionSection | TextSection, side: Side) -> Encoder:
    """The encoder of a side whose layers are named, fused with the further ones.

    Raises:
        EncoderError: one cannot be loaded.
    """
    fused = section.further.get("fuse", ())
    named: list[EncoderSection] = [section, *fused]
    parts = load_parts([(part.encoder, modality_of(side), part.options()) for part in named])
    return FusedEncoder(parts, [1.0, *(part.weight for part in fused)]) if fused else parts[0]


def encode_splits(
    plan: Recipe, vision: Encoder, text: Encoder, folder: Path,
    opened: dict[str, Dataset] | None = None,
) -> dict[str, Pairs]:  # fmt: skip
    """The joined features of every split that the recipe names, with all captions of its columns.

    Where the text encoder is to be trained, its captions' token ids stand in place of features.

    ``data.captions`` may name a column more than once (``caption#0``, ``caption#1``); each is
    encoded once. Choosing among its captions is left to :func:`training_pairs`.

    Args:
        plan: the recipe.
        vision: its vision encoder.
        text: its text encoder.
        folder: of the stores.
        opened: datasets of splits that were opened before; each is taken out when it is read.
    """
    splits = {}
    for name in SPLITS:
        source = getattr(plan.data, name)
        if source is None:
            continue
        dataset = (opened or {}).pop(name, None) or open_split(plan.data, source, name)
        columns = split_columns(plan.data, dataset)
        image = side_store(dataset, vision, plan.vision, folder, f"{name}-vision")
        texts = [text_store(dataset, text, plan, folder, name, column) for column in columns]
        splits[name] = pair(image, *texts)
        log.info("%s: %d images with captions", name, len(splits[name]))
    return splits


def unpaired_stores(
    plan: Recipe, vision: Encoder, text: Encoder, folder: Path, opened: dict[str, Dataset]
) -> dict[str, Store]:
    """What ``train.unpaired`` names, by side: stores as they are, all else encoded as the splits.

    Args:
        plan: the recipe.
        vision: its vision encoder.
        text: its text encoder.
        folder: of the stores.
        opened: datasets that are to be encoded; each is taken out when it is read.
    """
    stores = {}
    for side, name in UNPAIRED.items():
        found = opened.pop(name, None) or open_unpaired(plan, side)
        if isinstance(found, Path):
            stores[side] = Store.open(found)
        elif found is not None and side == "images":
            stores[side] = side_store(found, vision, plan.vision, folder, name)
        elif found is not None:
            column, *others = found.columns
            left = f"; left out: {', '.join(others)} (data.captions)" if others else ""
            log.info("train.unpaired.texts: column %s%s", column, left)
            stores[side] = side_store(found, text, plan.text, folder, f"{name}-{column}", column)
    return stores


def hold_out(
    plan: Recipe, splits: dict[str, Pairs], begun: Callable[[Pairs, Pairs], bool] | None = None
) -> str:
    """The name of the split that chooses the step.

    Where there is no validation split, a share of the training images becomes one: ``holdout``.

    Args:
        plan: says how much of them, and which.
        splits: by name; ``train`` is divided.
        begun: whether a training on these pairs, judged on those, has begun. What was begun when
            5 % were held out, by the training's seed, goes on so.
    """
    if "validation" in splits:
        return "validation"
    pairs, data = splits["train"], plan.data
    divided = pairs.holdout(data.holdout or _EARLIER, plan.train.seed)
    if begun is None or not begun(*divided):
        share = data.holdout or default_holdout(len(pairs))
        divided = pairs.holdout(share, data.holdout_seed)
    splits["train"], splits["holdout"] = divided
    log.info(
        "no validation split: %d of %d training images are held out to choose the step and to "
        "judge (data.holdout)", len(divided[1]), len(pairs),
    )  # fmt: skip
    return "holdout"


def default_holdout(images: int) -> float:
    """The share of images that is held out where nobody says.

    A twentieth, but at least 200 images, of which an interval of R@1 is some 10 points wide, and at
    most 10,000, since ranking them takes time by their square; of few images no more than 40 %.
    """
    count = min(max(_FEWEST_HELD_OUT, images / 20), _MOST_HELD_OUT)
    return min(_LARGEST_SHARE, count / max(1, images))


def headline(splits: Mapping[str, Pairs], chosen_on: str) -> str:
    """The split whose numbers come first: one that chose nothing, where there is one."""
    return "test" if "test" in splits else chosen_on


def training_pairs(pairs: Pairs, data: DataSection, seed: int) -> Pairs:
    """The pairs to train on: ``data.pairs`` of them, or all, with the captions that
    ``data.captions`` names, or all if it names none.

    For training alone: retrieval is judged on all captions of a column.

    Args:
        pairs: those of the training split that are not held out.
        data: the recipe's section.
        seed: of the draw, where ``data.pairs_seed`` is not given.

    Raises:
        DataError: there are fewer than ``data.pairs``.
    """
    if data.pairs is not None:
        if data.pairs > len(pairs):
            raise DataError(
                f"data.pairs is {data.pairs:,}, and there are {len(pairs):,} paired images to "
                "train on",
                "Ask for fewer, or leave data.pairs out to train on all.",
            )
        pairs = pairs.draw(data.pairs, seed if data.pairs_seed is None else data.pairs_seed)
    return pairs.with_captions(*data.captions) if data.captions else pairs


def text_store(
    dataset: Dataset, text: Encoder, plan: Recipe, folder: Path, split: str, column: str
) -> Store:
    """One caption column of a split: features, or token ids of an encoder that is to be trained."""
    if isinstance(text, TokenEncoder):
        name = f"{split}-tokens-{column}"
        dtype = token_dtype(folder / f"{name}-{text.info.key[:8]}")
        return _store(dataset, text, dtype, folder, name, column)
    return side_store(dataset, text, plan.text, folder, f"{split}-text-{column}", column)


def token_dtype(folder: Path) -> StoredDtype:
    """The dtype of a store of token ids: int32, or float32 where an earlier version has made it
    so. Then it is read as it is, and what was trained on it is found done."""
    for file in (MANIFEST, PLAN):
        if (folder / file).is_file():
            values = read_json(folder / file)
            described = values.get("description", values) if isinstance(values, dict) else {}
            return "float32" if described.get("dtype") == "float32" else "int32"
    return "int32"


def side_store(
    dataset: Dataset, encoder: Encoder, section: VisionSection | TextSection, folder: Path,
    name: str, column: str | None = None,
) -> Store:  # fmt: skip
    """The features of a side's encoder. See :func:`view_stores`."""
    if isinstance(encoder, FusedEncoder) and section.fuse:
        return fused_store(dataset, encoder, section.dtype, folder, name, column)
    return _store(dataset, encoder, section.dtype, folder, name, column)


def fused_store(
    dataset: Dataset, encoder: FusedEncoder, dtype: FeatureDtype, folder: Path, name: str,
    column: str | None = None, *, end: str = "",
) -> Store:  # fmt: skip
    """The features of several encoders as one store; each also has a store of its own, so that a
    further one costs one encoding. See :func:`view_stores`."""
    parts = stores_by_network(dataset, encoder.parts, dtype, folder, name, column, end=end)
    path = folder / f"{name}-{encoder.info.key[:8]}{end}"
    make = partial(fuse, parts, path, weights=encoder.weights, dtype=dtype, overwrite=True)
    return present().in_turn(make)


def stores_by_network(
    dataset: Dataset, encoders: Sequence[Encoder], dtype: StoredDtype, folder: Path, name: str,
    column: str | None = None, *, end: str = "",
) -> list[Store]:  # fmt: skip
    """The store of each of several encoders; those that are views of one network come from one
    pass. See :func:`view_stores`."""
    stores: dict[int, Store] = {}
    for together in shared_passes(encoders):
        views = [encoders[index] for index in together]
        made = view_stores(dataset, views, dtype, folder, name, column, end=end)
        stores.update(zip(together, made, strict=True))
    return [stores[index] for index in range(len(encoders))]


def view_stores(
    dataset: Dataset, views: Sequence[Encoder], dtype: StoredDtype, folder: Path, name: str,
    column: str | None = None, *, end: str = "",
) -> list[Store]:  # fmt: skip
    """The store of each of an encoder's views, from one pass. Its folder goes by the encoder, so
    that changing the encoder keeps the features of the other; stale data below the same encoder is
    replaced.

    Args:
        dataset: what to encode.
        views: one encoder, or several that share a network.
        dtype: of the features.
        folder: of all stores.
        name: what the stores' own names begin with.
        column: the caption column of texts.
        end: what their names end with.
    """
    paths = [folder / f"{name}-{view.info.key[:8]}{end}" for view in views]
    stores = _encode_together(dataset, views, paths, column, dtype)
    for store in stores:
        log.info("%s: %d rows of %d values, %d skipped", store.path.name, len(store), store.dim,
                 len(store.skipped))  # fmt: skip
    return stores


def _encode_together(
    dataset: Dataset, views: Sequence[Encoder], outs: Sequence[Path], column: str | None,
    dtype: StoredDtype,
) -> list[Store]:  # fmt: skip
    """The store of each view; of several processes each encodes whole shards of its own, from which
    the first one makes the stores."""
    ranks = present()
    whole = partial(encode_views, dataset, views, outs, column=column, dtype=dtype, overwrite=True)
    if ranks.size == 1:
        return whole()
    # What is missing, as the first one sees it, which alone looks.
    seen = missing_views(dataset, views, outs, column=column, dtype=dtype) if ranks.leads else []
    [missing, *_] = ranks.agree(seen)
    if missing:
        own = [outs[at].with_name(f"{outs[at].name}.rank-{ranks.rank}") for at in missing]
        encode_views(
            dataset, [views[at] for at in missing], own, column=column, dtype=dtype, overwrite=True,
            share=Share(ranks.rank, ranks.size),
        )  # fmt: skip
        ranks.wait()

    def shares() -> list[list[Path]]:  # those that a call with more processes left, too
        return [sorted(out.parent.glob(f"{out.name}.rank-*")) for out in outs]

    return ranks.in_turn(partial(whole, shares=shares if ranks.leads else None))


def _store(
    dataset: Dataset, encoder: Encoder, dtype: StoredDtype, folder: Path, name: str,
    column: str | None = None,
) -> Store:  # fmt: skip
    return view_stores(dataset, [encoder], dtype, folder, name, column)[0]
