"""What a stage begins with: the model, what stands for images, and conversations on both sides."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.data.samples import Skip
from lateen.device import resolve_device
from lateen.errors import DataError, UsageError
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.assembly import build
from lateen.mllm.batches import Collator
from lateen.mllm.config import MultimodalRecipe, StageSection
from lateen.mllm.image_tokens import (
    ImageTokens,
    LiveImages,
    StoredTokens,
    bytes_of,
    store_tokens,
)
from lateen.mllm.instructions import Instructions
from lateen.mllm.labelling import Labelled, Labeller, images_of
from lateen.progress import bar, log

PROJECTOR = "multi_modal_projector"
"""What the names of the projector's parameters have in them, in transformers' Llava."""
_MOST_BYTES = 20 * 10**9  # of stored tokens, where nothing else is said
_MOST_CONVERSATIONS = 400  # that are held out


def open_start(plan: MultimodalRecipe) -> MultimodalModel:
    """The model that a stage begins with; the same each time it is opened.

    Raises:
        LateenError: it is not there, or its parts do not fit.
    """
    device = resolve_device(plan.device)
    if plan.start is not None:
        return MultimodalModel.from_pretrained(plan.start, device=str(device))
    assert plan.llm is not None  # the recipe is checked
    built = build(
        plan.tower if len(plan.tower) > 1 else plan.tower[0], plan.llm, mix=plan.mix,
        share=plan.share, tokens=plan.tokens, layer=plan.layer, bare=plan.bare, grid=plan.grid,
        norm=plan.norm, template=plan.template, seed=plan.train.seed,
    )  # fmt: skip
    return MultimodalModel(built.model.to(device), built.processor, built.record, built.trained_on)


@dataclass(frozen=True)
class Preparation:
    """A stage that is ready to begin.

    Attributes:
        plan: the recipe.
        labeller: makes ids and labels.
        collator: makes batches.
        learned: conversations to learn from.
        held: conversations that the loss is measured on; empty without a holdout.
        images: how many the learned ones are about.
        skips: what was left out, and why.
        turns_left_out: of conversations that are too long, in all.
        stored: whether image tokens were made before.
    """

    plan: MultimodalRecipe
    labeller: Labeller
    collator: Collator
    learned: Sequence[Labelled]
    held: Sequence[Labelled]
    images: int
    skips: Sequence[Skip]
    turns_left_out: int
    stored: bool

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return count_steps(self.plan.train, len(self.learned))


def count_steps(settings: StageSection, conversations: int) -> int:
    """The steps of a training on so many conversations."""
    per_epoch = math.ceil(conversations / settings.batch)
    return settings.steps or max(1, math.ceil(settings.epochs * per_epoch))


def prepare_stage(
    plan: MultimodalRecipe, start: MultimodalModel, instructions: Instructions, folder: Path
) -> Preparation:
    """Make image tokens, ids and labels, and hold some out.

    Args:
        plan: the recipe.
        start: the model.
        instructions: what is learned from.
        folder: that stored tokens go into.

    Raises:
        DataError: not one conversation can be learned from.
        UsageError: the model's tower or chat template does not allow it.
    """
    images, skips = _image_tokens(plan, start, instructions, folder)
    return with_tokens(plan, start, instructions, images, skips)


def with_tokens(
    plan: MultimodalRecipe, start: MultimodalModel, instructions: Instructions,
    images: ImageTokens, skips: Sequence[Skip] = (),
) -> Preparation:  # fmt: skip
    """:func:`prepare_stage` where what stands for images is there already.

    Args:
        plan: as there.
        start: likewise.
        instructions: likewise.
        images: gives it.
        skips: images that it does not have.
    """
    image_token, tokens = int(start.model.config.image_token_index), tokens_of(start)
    labeller = Labeller(
        start.processor, plan.stage, image_token=image_token, tokens=tokens,
        max_length=_longest(plan, start), caption_prompt=plan.train.caption_prompt,
    )  # fmt: skip
    labelled, unfit = _label(instructions, images, labeller)
    learned, held = hold_out(labelled, plan)
    held = [each for each in held if images.readable(each.images)]
    pad_token = start.processor.tokenizer.pad_token_id or 0
    return Preparation(
        plan, labeller, Collator(image_token, tokens, pad_token, images),
        learned, held, len(set(images_of(learned))),
        (*instructions.skips, *skips, *unfit), sum(each.turns_left_out for each in labelled),
        isinstance(images, StoredTokens),
    )  # fmt: skip


def tokens_of(start: MultimodalModel) -> int:
    """How many tokens an image of a model has.

    Raises:
        UsageError: nothing says it.
    """
    config = start.model.config
    own = getattr(config.vision_config, "num_tokens", None) or config.image_seq_length
    if not own:
        raise UsageError("the model does not say how many tokens an image has", "Build it anew.")
    return int(own)


def _longest(plan: MultimodalRecipe, start: MultimodalModel) -> int:
    """What fits into the language model, and into what was asked for."""
    return min(plan.train.max_length, start.context or plan.train.max_length)


def _image_tokens(
    plan: MultimodalRecipe, start: MultimodalModel, instructions: Instructions, folder: Path
) -> tuple[ImageTokens, list[Skip]]:
    """What stands for images, and those that cannot be read, where that is known."""
    sources, tower = instructions.images, start.model.model.vision_tower
    if not stores_tokens(plan, start, len(sources)):
        return LiveImages(sources, start.processor.image_processor), []
    wanted = plan.train.features
    store = store_tokens(
        tower, start.processor.image_processor, sources,
        folder if wanted == "auto" else Path(wanted), device=plan.device,
    )  # fmt: skip
    skips = [Skip(str(each["id"]), str(each["reason"]), "images") for each in store.skipped]
    return StoredTokens(store, tokens_of(start)), skips


def stores_tokens(plan: MultimodalRecipe, start: MultimodalModel, images: int) -> bool:
    """Whether image tokens are made once, before the first step; what speaks against it is logged.

    Args:
        plan: the recipe.
        start: the model.
        images: how many there are.
    """
    wanted, config = plan.train.features, start.model.model.vision_tower.config
    if not images or wanted == "live" or plan.train.tune_tower:
        return False
    if not hasattr(config, "num_tokens"):
        log.info("image tokens are made in every step: the tower is not one of lateen's")
        return False
    size = bytes_of(images, tokens_of(start), config.hidden_size)
    if wanted == "auto" and size > _MOST_BYTES:
        log.info("image tokens are made in every step: they would take %.0f GB", size / 1e9)
        return False
    return True


def _label(
    instructions: Instructions, images: ImageTokens, labeller: Labeller
) -> tuple[list[Labelled], list[Skip]]:
    """Ids and labels of conversations whose images are there."""
    labelled: list[Labelled] = []
    skips: list[Skip] = []
    with bar(len(instructions.conversations), "conversations", "conversation") as progress:
        for each in instructions.conversations:
            progress.update()
            if isinstance(images, StoredTokens) and not images.readable(each.images):
                skips.append(Skip(each.id, "its image cannot be read", "images"))
                continue
            try:
                labelled.append(labeller(each))
            except DataError as error:
                skips.append(Skip(each.id, error.message, instructions.name))
    if not labelled:
        raise DataError(
            f"{instructions.name} has no conversation to learn from (the first: {skips[0].reason})",
            "Look at its images and turns.",
        )
    if skips:
        log.warning("%d conversations are left out (the first: %s)", len(skips), skips[0].reason)
    return labelled, skips


def hold_out(
    labelled: Sequence[Labelled], plan: MultimodalRecipe
) -> tuple[list[Labelled], list[Labelled]]:
    """What is learned, and what the loss is measured on: of some images, none of which is learned.

    An image is on one side with all of its conversations; of captions one is measured, of other
    conversations about it all are, up to a limit that is drawn by lot.
    """
    names = sorted(set(images_of(labelled)), key=_lot(plan.train.seed))
    count = min(plan.train.holdout, len(names) // 10)
    if count < 2:
        if plan.train.holdout:
            log.warning("%d images are too few to hold some out: nothing is measured", len(names))
        return list(labelled), []
    held_names = set(names[:count])
    learned = [each for each in labelled if not held_names & set(each.images)]
    held = [each for each in labelled if each.images and set(each.images) <= held_names]
    if plan.stage == "projector":
        held = list({each.images: each for each in reversed(held)}.values())
    held.sort(key=lambda each: _lot(plan.train.seed)("\n".join(each.images)))
    return learned, held[:_MOST_CONVERSATIONS]


def _lot(seed: int) -> Any:
    return lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()


def check_trainable(start: MultimodalModel) -> None:
    """See that a model is one that can be trained here.

    Raises:
        UsageError: it is no Llava.
    """
    if start.model.config.model_type != "llava" or not hasattr(start.model.model, PROJECTOR):
        raise UsageError(
            f"a {start.model.config.model_type} is no Llava",
            "Give a model that `lateen mllm build` made, or llava-hf's.",
        )
