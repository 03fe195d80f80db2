"""What heads and training suit a number of pairs: ``preset: auto``.

Searched for on held-out training photographs (docs/results.md, "What suits how many pairs"). From
300 to 5,400 photographs it is the ridges of the closed form and its share that must change; beside
it, no other rate, dropout, number of epochs or dims was better than those of ``small``. Beyond,
nothing was measured: the share goes on falling and dropout goes to 0, as the methods published for
millions of pairs have neither, and where there are steps enough for those their preset ``sail`` is
taken as it is.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lateen.training.config import LONGEST_CCA, PRESETS, HeadSection, TrainSection

MANY = 500_000
"""Images from which on the paper's preset has steps enough: 15 of 32,768 in an epoch."""

# Ridges in features per row: sampling spreads the eigenvalues of a covariance by about d/n.
_IMAGE_RIDGE, _TEXT_RIDGE = 4.0, 8.0
_SHARE, _MOST_SHARE = 60.0, 2.0  # share of the closed form times the root of the number of images
_MEASURED = 6_000  # images up to which there were any to measure with
_DROPOUT, _TEXT_DROPOUT = 0.7, 0.2


class TrainingSize(NamedTuple):
    """What is known of pairs before they are trained on.

    Attributes:
        images: how many.
        captions: of all of them.
        image_dim: length of image features.
        text_dim: of captions' features.
    """

    images: int
    captions: int
    image_dim: int
    text_dim: int


def suited(
    head: HeadSection, train: TrainSection, size: TrainingSize
) -> tuple[HeadSection, TrainSection, str]:
    """Both sections with what suits the pairs wherever nobody gave a value, and a sentence on it.

    Args:
        head: of linear heads.
        train: the training.
        size: of the pairs.
    """
    values = _values(size)
    given = {
        "head": head.model_dump(include=head.model_fields_set),
        "train": train.model_dump(include=train.model_fields_set),
    }
    chosen = {
        section: {key: value for key, value in each.items() if key not in given[section]}
        for section, each in values.items()
    }
    taken = TrainSection.model_validate({**chosen["train"], **given["train"]})
    return (
        HeadSection.model_validate({**chosen["head"], **given["head"]}),
        taken.model_copy(update={"track": train.track}),  # which is in no dump
        _told(chosen, given, size),
    )


def _told(
    chosen: dict[str, dict[str, Any]], given: dict[str, dict[str, Any]], size: TrainingSize
) -> str:
    """What was chosen, for what, and where that is from. Where all is given, as in the recipe that
    a run saved, what is other than it would be for these pairs."""
    words = _in_words(chosen)
    if _too_long(size) and size.images < MANY and "cca" in chosen["train"]:
        words[-1] += f" (the closed form takes features of up to {LONGEST_CCA:,} values)"
    if not words:
        other = {
            section: {key: value for key, value in values.items() if given[section][key] != value}
            for section, values in _values(size).items()
        }
        would = ", ".join(_in_words(other))
        meant = f", and for these pairs would be {would}" if would else ""
        words = [f"all that it chooses is given{meant}"]
    beyond = f"; beyond {_MEASURED:,} images not measured" if size.images > _MEASURED else ""
    return (
        f"preset auto, for {size.images:,} images with {size.captions:,} captions of "
        f"{size.image_dim} and {size.text_dim} values: "
        f"{', '.join(words)} "
        f"(docs/results.md, What suits how many pairs{beyond})"
    )


def _in_words(values: dict[str, dict[str, Any]]) -> list[str]:
    """Keys with their values."""
    return [
        f"{section}.{key} {' / '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for section, each in values.items()
        for key, value in each.items()
    ]


def _values(size: TrainingSize) -> dict[str, dict[str, Any]]:
    """Keys of ``head`` and of ``train``, rounded so that they can be read."""
    if size.images >= MANY:
        return PRESETS["sail"]
    kept = 1.0 - _towards_published(size.images)
    head = {"dropout": round(kept * _DROPOUT, 2), "text_dropout": round(kept * _TEXT_DROPOUT, 2)}
    if _too_long(size):
        return {"head": head, "train": {"cca": 0.0}}
    share = min(_MOST_SHARE, _SHARE / math.sqrt(size.images))
    ridges = (
        _rounded(_IMAGE_RIDGE * size.image_dim / size.images),
        _rounded(_TEXT_RIDGE * size.text_dim / size.captions),
    )
    return {"head": head, "train": {"cca": round(share, 2), "cca_ridge": ridges}}


def _too_long(size: TrainingSize) -> bool:
    """Whether features are longer than the closed form is for."""
    return max(size.image_dim, size.text_dim) > LONGEST_CCA


def _towards_published(images: int) -> float:
    """How far a number is from the largest measured to that of published settings, in [0, 1], by
    its logarithm."""
    share = math.log(images / _MEASURED) / math.log(MANY / _MEASURED)
    return min(1.0, max(0.0, share))


def _rounded(value: float) -> float:
    """Two significant digits."""
    return float(f"{value:.2g}")
