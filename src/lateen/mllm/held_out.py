"""The loss on conversations that are not learned from, under their own images and under others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lateen.evaluation.intervals import LEVEL, Statistics, resamples
from lateen.evaluation.questions import Mean
from lateen.metrics.resampling import Tally, drawn_scores, interval_of
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.batches import Collator, losses
from lateen.mllm.benchmarks.questions import another_of, numbered
from lateen.mllm.labelling import Labelled, images_of

Array = np.ndarray[Any, Any]
OWN, ANOTHER, LOWER = "own", "another", "lower"
"""Mean loss of a token under the own image and under another's, and the percentage of conversations
for which the first is the lower one (chance: 50)."""


@torch.no_grad()
def losses_of(
    model: Any, collator: Collator, some: Sequence[Labelled], *, batch: int,
    instead: Mapping[str, str] | None = None,
) -> Array:  # fmt: skip
    """The mean loss of a labelled token of each conversation ``[n]``.

    Args:
        model: Llava, or what wraps it.
        collator: makes batches.
        some: conversations.
        batch: how many at a time.
        instead: image by image, what is shown in its place.
    """
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(some), batch):
        part = some[start : start + batch]
        images = images_of(part)
        shown = images if instead is None else [instead[name] for name in images]
        inputs = {name: v.to(device) for name, v in collator.under(part, shown).items()}
        each, row = losses(model, inputs)
        sums = torch.zeros(len(part), dtype=torch.float64, device=device)
        sums.index_add_(0, row, each.double())
        found.append((sums / row.bincount(minlength=len(part))).cpu().numpy())
    return np.concatenate(found)


def measure(
    model: Any, collator: Collator, held: Sequence[Labelled], *, batch: int
) -> dict[str, Any]:
    """How much lower the loss is under the own image than under another's.

    Conversations about the same image are drawn together for the intervals.

    Args:
        model: Llava, or what wraps it.
        collator: makes batches.
        held: conversations about two different images at least.
        batch: how many at a time.

    Returns:
        :data:`OWN`, :data:`ANOTHER` and :data:`LOWER`, their ``intervals``, ``n`` images and
        ``conversations``.
    """
    training = model.training
    model.eval()
    try:
        own = losses_of(model, collator, held, batch=batch)
        instead = another_of(images_of(held))
        other = losses_of(model, collator, held, batch=batch, instead=instead)
    finally:
        model.train(training)
    names, unit = numbered(["\n".join(each.images) for each in held])
    rows = np.array(unit)
    scores: Statistics = {
        OWN: Mean(rows, own, parts=1, scale=1.0),
        ANOTHER: Mean(rows, other, parts=1, scale=1.0),
        LOWER: Tally(rows, own < other),
    }
    drawn = drawn_scores(scores, len(names), resamples=resamples(len(names)))
    values = {OWN: own.mean(), ANOTHER: other.mean(), LOWER: 100 * (own < other).mean()}
    return {
        **{name: float(value) for name, value in values.items()},
        "intervals": {
            name: list(interval_of(score, drawn[name], len(names), LEVEL))
            for name, score in scores.items()
        },
        "n": len(names),
        "conversations": len(held),
    }


@torch.no_grad()
def say(
    mllm: MultimodalModel, collator: Collator, held: Sequence[Labelled], *, max_tokens: int
) -> list[dict[str, Any]]:
    """What a model says where the first answer of each conversation stands.

    Args:
        mllm: the trained model.
        collator: gives what stands for images.
        held: conversations.
        max_tokens: of an answer at most.

    Returns:
        For each ``images``, what is ``asked``, what it ``said``, whether that is ``cut``, and what
        is ``right``.
    """
    tokenizer = mllm.processor.tokenizer
    ends = set(mllm.end_tokens)
    found = []
    for each in held:
        first = int(each.learned.argmax())
        last = first + int(np.append(~each.learned[first:], True).argmax())
        asked = replace(each, ids=each.ids[:first], learned=each.learned[:first])
        # Only the images that stand before the answer.
        places = int((asked.ids == collator.image_token).sum())
        batch = collator.under([asked], each.images[:places])
        inputs = {n: v.to(mllm.model.device) for n, v in batch.items() if n != "labels"}
        said = mllm.generate(inputs, max_tokens)[0, inputs["input_ids"].shape[1] :].tolist()
        texts = {"said": said, "right": each.ids[first:last].tolist()}
        found.append({
            "images": list(each.images[:places]),
            "asked": each.asked,
            "cut": not (said and said[-1] in ends),
            **{name: tokenizer.decode(ids, skip_special_tokens=True).strip()
               for name, ids in texts.items()},
        })  # fmt: skip
    return found
