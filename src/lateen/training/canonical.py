"""Directions that images and captions share, in closed form: canonical correlation analysis.

With ``u`` and ``v`` the layer-normalised features of an image and of a caption, centred, and C
their covariances, ridged as ``C + ρ · mean(diag C) · I``: the singular vectors of
``C_uu^(-1/2) C_uv C_vv^(-1/2)`` are the directions, its singular values their correlations
(Hotelling 1936; ridged as by Vinod 1976). Directions are weighted by a power of their correlation,
so that doubtful ones count little. No step of training is needed, one pass over the features is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lateen.errors import TrainingError
from lateen.features import Pairs
from lateen.progress import bar, log
from lateen.training.batches import Array
from lateen.training.config import LONGEST_CCA, HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads

RIDGES = (1.0, 0.06)
"""Ridges of images' and captions' covariances. Chosen on Flickr8k's 5,700 photographs with 28,500
captions (docs/results.md); ``preset: auto`` has those of other numbers."""
_POWER = 0.75
_RIDGED = 6000  # pairs on which they were chosen
_SHARE = 0.8
_CHUNK = 16 * 2**20  # bytes in float32
_SAMPLE = 2048  # images whose embeddings tell the length of a typical one


@dataclass(frozen=True)
class AffineMap:
    """``weight @ u + bias`` of layer-normalised features u.

    Attributes:
        weight: ``[dim, features]``.
        bias: ``[dim]``.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Features ``[n, features]``, not yet normalised, to ``[n, dim]``."""
        return F.linear(normed(features), self.weight, self.bias)

    def to(self, device: torch.device) -> AffineMap:
        """The same on a device."""
        return AffineMap(self.weight.to(device), self.bias.to(device))

    def beside(self, other: AffineMap, share: float, features: Tensor) -> AffineMap:
        """This map's values followed by ``share`` times the other's, both of unit length on the
        average of ``features`` ``[n, features]``."""
        maps = [(self, 1.0), (other, share)]
        lengths = [w / m(features).norm(dim=1).mean() for m, w in maps]
        return AffineMap(
            torch.cat([m.weight * s for (m, _), s in zip(maps, lengths, strict=True)]),
            torch.cat([m.bias * s for (m, _), s in zip(maps, lengths, strict=True)]),
        )


def canonical_maps(
    pairs: Pairs, dim: int, ridges: tuple[float, float] | None = None
) -> tuple[AffineMap, AffineMap]:
    """The image map and the text map of the ``dim`` most correlated directions.

    Every caption of every column counts for the captions' covariance, their mean for that with the
    image. Memory is that of the covariances, ``O(features²)``; time is one pass over the features
    and ``O(features³)``.

    Args:
        pairs: features.
        dim: how many directions; fewer where the features have fewer dims.
        ridges: ρ of the images' covariance and of the captions'; those for some 5,700 photographs
            if not given.
    """
    image_ridge, text_ridge = ridges or RIDGES
    moments = _moments(pairs)
    image_root = _inverse_root(ridged(moments.image, image_ridge))
    text_root = _inverse_root(ridged(moments.text, text_ridge))
    u, correlations, vt = torch.linalg.svd(
        image_root @ moments.cross @ text_root, full_matrices=False
    )
    weights = weights_of(correlations[:dim])

    def affine(rows: Tensor, mean: Tensor) -> AffineMap:
        return AffineMap(rows.float(), -(rows @ mean).float())

    return (
        affine(weights[:, None] * (u.T[:dim] @ image_root), moments.image_mean),
        affine(weights[:, None] * (vt[:dim] @ text_root), moments.text_mean),
    )


def ridged(covariance: Tensor, ridge: float) -> Tensor:
    """A covariance ``[d, d]`` with a ridge, in mean variances of a feature."""
    diagonal = ridge * covariance.diagonal().mean() * torch.eye(len(covariance))
    return covariance + diagonal


def weights_of(correlations: Tensor) -> Tensor:
    """The weight of every direction, by its correlation."""
    return correlations.clamp(min=0) ** _POWER


def canonical_share(settings: TrainSection, head: HeadSection, *dims: int) -> float:
    """``settings.cca``, or what stands for it where it is not given.

    Args:
        settings: of the training.
        head: shape of the heads.
        dims: lengths of image and text features; of a text encoder that is trained, none.

    Raises:
        TrainingError: canonical directions beside heads that are not linear, or nothing to train
            and none of them.
    """
    linear = head.name == head.image_name == "linear" and len(dims) == 2
    by_default = _SHARE if linear and max(dims) <= LONGEST_CCA else 0.0
    if linear and settings.cca is None and max(dims) > LONGEST_CCA:
        log.info("no closed form beside the trained heads: features of %d values are longer than "
                 "the %d that it is for (train.cca asks for it all the same)",
                 max(dims), LONGEST_CCA)  # fmt: skip
    share = by_default if settings.cca is None else settings.cca
    if share > 0 and not linear:
        kind = "trained text encoder" if len(dims) < 2 else f"{head.name} head"
        raise TrainingError(
            f"canonical directions cannot stand beside a {kind}",
            "Use head.name linear, or leave train.cca out.",
        )
    if share == 0 and settings.epochs == 0:
        raise TrainingError(
            "0 epochs without canonical directions leave the heads as they were drawn",
            "Give train.epochs, or linear heads and a train.cca above 0.",
        )
    return share


def ridges_of(settings: TrainSection, pairs: int) -> tuple[float, float] | None:
    """``settings.cca_ridge``, or what stands for it: with ``unpaired`` the ridges that 6,000 pairs
    need are spread over fewer, so that every direction gets the same penalty in all.

    Args:
        settings: of the training.
        pairs: how many there are.
    """
    if settings.cca_ridge is not None or settings.unpaired is None:
        return settings.cca_ridge
    fewer = max(1.0, _RIDGED / pairs)
    return fewer * RIDGES[0], fewer * RIDGES[1]


def add_canonical(
    heads: AlignmentHeads, pairs: Pairs, share: float, *, alone: bool,
    ridges: tuple[float, float] | None = None,
) -> AlignmentHeads:  # fmt: skip
    """Heads whose embeddings are the trained ones followed by the canonical directions.

    Both are linear maps, and so is the result: a linear head of that many more dims. Trained and
    canonical parts have unit length on average, the latter times ``share``. t and b are kept.

    Args:
        heads: trained linear heads.
        pairs: what they were trained on.
        share: weight of the canonical part.
        alone: leave the trained part out.
        ridges: see :func:`canonical_maps`.
    """
    assert heads.settings.dim is not None
    image, text = canonical_maps(pairs, heads.settings.dim, ridges)
    some = pairs.spread(_SAMPLE)
    samples = pairs.image_features(some), pairs.text_features(0, some, np.zeros_like(some))
    if not alone:
        image = _affine(heads.vision).beside(image, share, samples[0])
        text = _affine(heads.text).beside(text, share, samples[1])
    settings = heads.settings.model_copy(update={"dim": len(image.bias)})
    with torch.device("meta"):  # no weights are drawn: all are given
        joined = AlignmentHeads(settings, image.weight.shape[1], text.weight.shape[1])
    joined.load_state_dict(
        {
            "logit_scale": heads.logit_scale.detach().clone(),
            "logit_bias": heads.logit_bias.detach().clone(),
            **_state("vision", image), **_state("text", text),
        },
        assign=True,
    )  # fmt: skip
    return joined.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Moments:
    image_mean: Tensor
    text_mean: Tensor
    image: Tensor
    text: Tensor
    cross: Tensor


def _moments(pairs: Pairs) -> _Moments:
    """Means and covariances of layer-normalised features, in float64."""
    image_dim, text_dim = pairs.image.dim, pairs.texts[0].store.dim
    sums = [torch.zeros(d, dtype=torch.float64) for d in (image_dim, text_dim, text_dim)]
    image = torch.zeros(image_dim, image_dim, dtype=torch.float64)
    text = torch.zeros(text_dim, text_dim, dtype=torch.float64)
    cross = torch.zeros(image_dim, text_dim, dtype=torch.float64)
    captions = 0
    size = max(1, _CHUNK // (4 * max(image_dim, text_dim)))
    with bar(len(pairs), "closed form", "image") as progress:
        for start in range(0, len(pairs), size):
            samples = np.arange(start, min(start + size, len(pairs)))
            u = normed(pairs.image_features(samples))
            v, means = _captions(pairs, samples)
            image += (u.T @ u).double()
            text += (v.T @ v).double()
            cross += (u.T @ means).double()
            for total, rows in zip(sums, (u, v, means), strict=True):
                total += rows.sum(0)
            captions += len(v)
            progress.update(len(samples))
    count = len(pairs)
    image_mean, text_mean, owner_mean = sums[0] / count, sums[1] / captions, sums[2] / count
    return _Moments(
        image_mean, text_mean, image / count - image_mean.outer(image_mean),
        text / captions - text_mean.outer(text_mean), cross / count - image_mean.outer(owner_mean),
    )  # fmt: skip


def _captions(pairs: Pairs, samples: Array) -> tuple[Tensor, Tensor]:
    """Layer-normalised features of all captions of some images, and each image's mean."""
    features = []
    means = torch.zeros(len(samples), pairs.texts[0].store.dim)
    for column in pairs.texts:
        chosen = column.take(samples)
        rows = normed(column.store[chosen.rows])
        shares = torch.from_numpy(1 / (chosen.counts * len(pairs.texts))).float()
        owner = torch.from_numpy(chosen.owner)
        means.index_add_(0, owner, rows * shares[owner, None])
        features.append(rows)
    return torch.cat(features), means


def normed(features: Tensor) -> Tensor:
    """Features ``[..., d]`` as canonical directions take them: layer-normalised, float32."""
    return F.layer_norm(features.float(), features.shape[-1:])


def _inverse_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.rsqrt()) @ vectors.T
    return root


def _affine(head: nn.Module) -> AffineMap:
    """A linear head as one map of layer-normalised features, its norm's weight and bias within."""
    state = head.state_dict()
    weight, gain = state["network.weight"], state["norm.weight"]
    return AffineMap(weight * gain, state["network.bias"] + weight @ state["norm.bias"])


def _state(side: str, affine: AffineMap) -> dict[str, Tensor]:
    dim = affine.weight.shape[1]
    return {
        f"{side}.norm.weight": torch.ones(dim), f"{side}.norm.bias": torch.zeros(dim),
        f"{side}.network.weight": affine.weight, f"{side}.network.bias": affine.bias,
    }  # fmt: skip
