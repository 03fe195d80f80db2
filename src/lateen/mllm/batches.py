"""Batches of conversations with what stands for their images, and the loss of what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lateen.errors import ImageError
from lateen.mllm.image_tokens import ImageTokens
from lateen.mllm.labelling import NO_LABEL, Labelled, collate, images_of
from lateen.progress import log

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Collator:
    """Makes a batch of conversations.

    Attributes:
        image_token: id of the placeholder.
        tokens: of an image.
        pad_token: id of what stands behind shorter ones.
        images: gives what stands for images.
    """

    image_token: int
    tokens: int
    pad_token: int
    images: ImageTokens

    def __call__(self, some: Sequence[Labelled]) -> Batch:
        """Ids, labels, attention mask, and of images in it ``pixel_values``; without those whose
        images turn out not to be readable, which is logged.

        Raises:
            ImageError: those of all of them.
        """
        try:
            return self.under(some, images_of(some))
        except ImageError as error:
            readable = [each for each in some if self.images.readable(each.images)]
            if not readable:
                raise
            log.warning("left out of its step: %s", error.message)
            return self.under(readable, images_of(readable))

    def under(self, some: Sequence[Labelled], images: Sequence[str]) -> Batch:
        """The same about these images, in the order of their places."""
        batch = collate(
            some, image_token=self.image_token, tokens=self.tokens, pad_token=self.pad_token
        )
        if images:
            batch["pixel_values"] = self.images.of(images)
        return batch


def losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The cross entropy of every labelled token, and which conversation of the batch it is of.

    The language model's head is run on the columns that have a label in any row, not on those of
    images and questions, which is most of the work of a small model with a large vocabulary.

    Args:
        model: Llava, or what wraps it.
        batch: as a :class:`Collator` makes it.

    Returns:
        Both ``[labelled tokens]``.
    """
    targets = batch["labels"][:, 1:]
    columns = (targets != NO_LABEL).any(0).nonzero().squeeze(1)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    chosen = targets[:, columns]
    labelled = chosen != NO_LABEL
    each = F.cross_entropy(logits[labelled].float(), chosen[labelled], reduction="none")
    return each, labelled.nonzero()[:, 0]
