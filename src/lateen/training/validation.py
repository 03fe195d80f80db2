"""What is measured of heads while they train and at the end, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from lateen.features import Pairs
from lateen.metrics.retrieval import Retrieval, mean_recall, retrieval
from lateen.progress import log
from lateen.training.calibration import MOST, Calibration
from lateen.training.heads import AlignmentHeads

_CHUNK = 8192


@torch.no_grad()
def validate(heads: AlignmentHeads, pairs: Pairs) -> Retrieval:
    """Retrieval of ``pairs``' images and the captions of their first column.

    Without dropout and in float32 whatever the training's precision, as every later evaluation.
    """
    return retrieval(*_embedded(heads, pairs))


@torch.no_grad()
def _embedded(heads: AlignmentHeads, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of images ``[n, dim]`` and of the first column's captions ``[m, dim]``, and the
    image of each caption ``[m]``."""
    device = heads.logit_scale.device
    features, owner = pairs.all_texts(0)
    training = heads.training
    heads.eval()
    image = [
        heads.embed_image(pairs.image_features(slice(i, i + _CHUNK)).to(device))
        for i in range(0, len(pairs), _CHUNK)
    ]
    text = [
        heads.embed_text(features[i : i + _CHUNK].to(device))
        for i in range(0, len(features), _CHUNK)
    ]
    heads.train(training)
    return torch.cat(image), torch.cat(text), owner


def calibrate(heads: AlignmentHeads, pairs: Pairs, one_in: int) -> Calibration | None:
    """Give heads the t and b at which their cosines are probabilities, if any do that.

    Args:
        heads: as they are to be used; their t and b are replaced.
        pairs: that trained no weight of them.
        one_in: among how many texts one is the image's own.
    """
    before = heads.scale.item(), heads.logit_bias.item()
    some = pairs.take(pairs.spread(MOST))
    calibration = Calibration.of(*_embedded(heads, some), one_in=one_in, before=before)
    if calibration is None:
        log.info(
            "t and b stay as they were trained: they cannot be fitted to the %d images that chose "
            "the step", len(pairs),
        )  # fmt: skip
        return None
    with torch.no_grad():
        heads.logit_scale.fill_(math.log(calibration.scale))
        heads.logit_bias.fill_(calibration.bias)
    return calibration


class Validation(Protocol):
    """What is measured of a module during training, and what is made of it."""

    def measure(self, module: Any, step: int) -> Mapping[str, Any]:
        """Measure the module as it is after ``step`` steps; JSON values."""

    def better(self, metrics: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
        """Whether the weights with ``metrics`` are to be given back rather than those of before."""

    def enough(self, metrics: Mapping[str, Any]) -> bool:
        """Whether training is to end here."""


@dataclass(frozen=True)
class RetrievalValidation:
    """Keeps the heads with the best mean over R@1, R@5 and R@10 both ways: R@10 alone saturates on
    a few hundred images.

    Attributes:
        pairs: whose images and first captions find each other.
    """

    pairs: Pairs

    def measure(self, module: AlignmentHeads, step: int) -> Retrieval:
        """:func:`validate`."""
        del step
        return validate(module, self.pairs)

    def better(self, metrics: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
        """Whether the mean recall is higher."""
        return best is None or _mean_recall(metrics) > _mean_recall(best)

    def enough(self, metrics: Mapping[str, Any]) -> bool:
        """Never: the schedule has its end."""
        del metrics
        return False


def _mean_recall(metrics: Mapping[str, Any]) -> float:
    return mean_recall(cast(Retrieval, metrics))
