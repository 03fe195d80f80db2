"""Scores of every image with every caption of each example of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data.cases import CaptionList, Case, CaseSet
from lateen.data.prompts import check_templates
from lateen.errors import DataError
from lateen.evaluation.cache import cached_features
from lateen.evaluation.embedding import project_rows
from lateen.files import content_key
from lateen.metrics import class_embeddings
from lateen.model import AlignedModel
from lateen.store import Store

_CHUNK = 1024  # cases whose embeddings are multiplied at a time
_MOST_LISTED = 20


@dataclass(frozen=True)
class ScoredCases:
    """Examples with their scores.

    Attributes:
        cases: those that could be scored.
        scores: ``[cases, images, captions]`` cosines on the CPU, −∞ where a case has fewer captions
            than another.
        left_out: why each other example could not: ``id``, ``reason``, ``source``.
        skipped: how many images, captions and rows could not be used.
        images: the features of all images.
        data: content key of the images and captions.
    """

    cases: list[Case]
    scores: Tensor
    left_out: list[dict[str, str]]
    skipped: int
    images: Store
    data: str

    def counts(self) -> dict[str, Any]:
        """What every result says of those left out; the first few by name."""
        return {
            "skipped": self.skipped,
            "left_out": len(self.left_out),
            "left_out_examples": self.left_out[:_MOST_LISTED],
        }


def score_cases(
    model: AlignedModel,
    found: CaseSet,
    *,
    templates: Sequence[str] = ("{}",),
    cache: Path | None = None,
) -> ScoredCases:
    """Cosines of each case's images with its captions.

    A case that lacks an image or a caption is left out, with the reason.

    Args:
        model: an aligned model.
        found: the benchmark.
        templates: prompts with ``{}`` for the caption; embeddings of several are averaged.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        UsageError: a template has no ``{}``, or there is none.
        DataError: not one case could be scored.
    """
    check_templates(templates or [""], "caption")
    images = cached_features(
        found.images, model.vision_encoder, folder=cache and cache / "images",
        dtype=model.config.feature_dtype("vision"),
    )  # fmt: skip
    captions = list(dict.fromkeys(text for case in found.cases for text in case.captions))
    prompts = [template.replace("{}", text) for text in captions for template in templates]
    texts = cached_features(
        CaptionList(found.name, prompts), model.text_encoder, "caption",
        folder=cache and cache / "captions", dtype=model.config.feature_dtype("text"),
    )  # fmt: skip
    image_rows = {sample: row for row, sample in enumerate(images.ids)}
    prompt_rows = _prompt_rows(captions, texts, len(templates))
    cases, left_out = _divide(found, images, image_rows, prompt_rows)
    places = {caption: place for place, caption in enumerate(prompt_rows)}
    scores = _scores(
        project_rows(model.project_image, images, range(len(images))),
        _embed_captions(model, texts, prompt_rows),
        [[image_rows[image] for image in case.images] for case in cases],
        [[places[text] for text in case.captions] for case in cases],
    )
    lost = {(skip["id"], skip["source"]) for skip in images.skipped + texts.skipped}
    key = content_key(
        [
            found.images.fingerprint,
            [[c.id, c.images, c.captions, dict(c.groups)] for c in found.cases],
        ]
    )
    return ScoredCases(cases, scores, left_out, len(lost) + len(found.skips), images, key)


def _prompt_rows(captions: Sequence[str], texts: Store, templates: int) -> dict[str, list[int]]:
    """For each caption that can be used, the rows of its prompts."""
    rows = {int(sample): row for row, sample in enumerate(texts.ids)}
    found = {}
    for index, caption in enumerate(captions):
        mine = [rows.get(index * templates + offset) for offset in range(templates)]
        whole = [row for row in mine if row is not None]
        if len(whole) == templates:
            found[caption] = whole
    return found


def _divide(
    found: CaseSet, images: Store, image_rows: Mapping[str, int], captions: Mapping[str, Any]
) -> tuple[list[Case], list[dict[str, str]]]:
    """The cases that can be scored, and why others cannot."""
    reasons = {skip["id"]: skip["reason"] for skip in images.skipped}
    cases: list[Case] = []
    left_out = [{"id": s.id, "reason": s.reason, "source": s.source} for s in found.skips]
    for case in found.cases:
        lost = [image for image in case.images if image not in image_rows]
        if lost:
            reason = f"image {lost[0]}: {reasons.get(lost[0], 'it has no features')}"
        elif not all(caption in captions for caption in case.captions):
            reason = "a caption could not be encoded"
        else:
            cases.append(case)
            continue
        left_out.append({"id": case.id, "reason": reason, "source": found.name})
    if not cases:
        raise DataError(
            f"not one of the {len(left_out)} examples of {found.name} can be scored (the first: "
            f"{left_out[0]['reason']})",
            "Check its images.",
        )
    return cases, left_out


def _embed_captions(model: AlignedModel, texts: Store, rows: Mapping[str, list[int]]) -> Tensor:
    """Embeddings ``[captions, dim]``, of several prompts their mean."""
    flat = [row for mine in rows.values() for row in mine]
    embeddings = project_rows(model.project_text, texts, flat)
    prompts = len(flat) // len(rows)
    if prompts == 1:
        return embeddings
    return class_embeddings(embeddings.view(len(rows), prompts, -1))


def _scores(
    image: Tensor, text: Tensor, images: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> Tensor:
    """Cosines ``[cases, images, captions]`` of embeddings ``[n, dim]`` and ``[m, dim]``.

    Args:
        image: of the images.
        text: of the captions.
        images: each case's rows of ``image``, equally many.
        texts: each case's rows of ``text``.
    """
    most = max(map(len, texts))
    rows = torch.tensor([[*mine, *[-1] * (most - len(mine))] for mine in texts])
    parts = []
    for start in range(0, len(rows), _CHUNK):
        left = image[torch.tensor(images[start : start + _CHUNK])]
        mine = rows[start : start + _CHUNK]
        # Not a matrix product, which may round equal pairs differently, so that a tie is none.
        cosines = (left[:, :, None] * text[mine][:, None]).sum(-1)
        parts.append(cosines.masked_fill((mine < 0)[:, None], -torch.inf))
    return torch.cat(parts)
