"""How far a tuned tower has moved from its start, and how far that can move any text's cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lateen.tuning.objective import alignment_bound

_QUANTILES = {"q01": 0.01, "q05": 0.05, "q50": 0.50}
_MOST_TEXTS = 5000
_BLOCK = 2**24  # cosines held at a time
_ROUNDING = 1e-5  # of a cosine in float32


@dataclass(frozen=True)
class Embedded:
    """Images of one set with their embeddings.

    Attributes:
        ids: of the images.
        raw: ``[n, dim]`` embeddings as the model gives them, not normalised.
    """

    ids: Sequence[str]
    raw: Tensor

    def of(self, ids: Sequence[str]) -> Tensor:
        """The embeddings of these images ``[len(ids), dim]``, all of which must be there."""
        row_of = {sample: row for row, sample in enumerate(self.ids)}
        return self.raw[[row_of[sample] for sample in ids]]


def paired(before: Sequence[Embedded], after: Sequence[Embedded]) -> tuple[Tensor, Tensor]:
    """The embeddings ``[n, dim]`` of the images that both have, set by set, in one order.

    Args:
        before: the start's sets.
        after: a candidate's, as many.
    """
    starts, candidates = [], []
    for start, candidate in zip(before, after, strict=True):
        there = set(candidate.ids)
        shared = [sample for sample in start.ids if sample in there]
        starts.append(start.of(shared))
        candidates.append(candidate.of(shared))
    return torch.cat(starts), torch.cat(candidates)


def drift_of(start: Tensor, candidate: Tensor, texts: Tensor | None = None) -> dict[str, Any]:
    """Drift of the embeddings of the same images, JSON-ready.

    For any text ψ, |cos(f, ψ) − cos(f₀, ψ)| ≤ 2‖f − f₀‖ / max(‖f‖, ‖f₀‖) (METHODS §2): what a text
    finds can change by no more than that, whichever text it is.

    Args:
        start: ``[n, dim]`` embeddings of the start, not normalised.
        candidate: ``[n, dim]`` those of the candidate.
        texts: ``[m, dim]`` L2-normalised embeddings of texts to hold against the bound; of more
            than 5,000, as many evenly spaced ones are taken.

    Returns:
        ``images``; ``cosine`` of each image with its start (``mean``, ``q01``, ``q05``, ``q50``,
        ``min``); ``norm``, the relative change of length (``mean``, ``min``, ``max``); ``bound``
        (``mean``, ``max``); and, of texts, else ``None``: ``texts``, how many; ``change``, the
        largest change of a cosine for each image (``mean``, ``max``); ``tightness``, that over the
        bound (``mean``, ``max``), of the images that moved; ``violations``, how many images are
        above the bound, which would be a mistake in the program.
    """
    start, candidate = start.double(), candidate.double()
    same = (start == candidate).all(1)
    cosine = torch.where(same, 1.0, functional.cosine_similarity(candidate, start))
    lengths = candidate.norm(dim=1) / start.norm(dim=1) - 1
    bound = alignment_bound(candidate, start).double()
    quantiles = {name: cosine.quantile(at).item() for name, at in _QUANTILES.items()}
    drift: dict[str, Any] = {
        "images": len(start),
        "cosine": {"mean": cosine.mean().item(), **quantiles, "min": cosine.min().item()},
        "norm": {
            "mean": lengths.mean().item(), "min": lengths.min().item(), "max": lengths.max().item()
        },
        "bound": _summary(bound),
        **dict.fromkeys(("texts", "change", "tightness", "violations")),
    }  # fmt: skip
    if texts is not None and len(texts):
        drift |= _against_texts(start, candidate, _some(texts).double(), bound)
    return drift


def _against_texts(
    start: Tensor, candidate: Tensor, texts: Tensor, bound: Tensor
) -> dict[str, Any]:
    """What the cosines with real texts did, beside what they could have done at most."""
    moved = functional.normalize(candidate, dim=1) - functional.normalize(start, dim=1)
    rows = max(1, _BLOCK // len(texts))
    change = torch.cat([(part @ texts.T).abs().amax(1) for part in torch.split(moved, rows)])
    any_bound = bound > 0
    ratio = change[any_bound] / bound[any_bound]
    return {
        "texts": len(texts),
        "change": _summary(change),
        "tightness": _summary(ratio) if len(ratio) else None,
        "violations": int((change > bound + _ROUNDING).sum()),
    }


def _summary(values: Tensor) -> dict[str, float]:
    return {"mean": values.mean().item(), "max": values.max().item()}


def _some(texts: Tensor) -> Tensor:
    if len(texts) <= _MOST_TEXTS:
        return texts
    return texts[torch.linspace(0, len(texts) - 1, _MOST_TEXTS).long()]
