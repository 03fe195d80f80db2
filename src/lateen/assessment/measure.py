"""The measures beside alignment probing, a row each: what is taken, and how it is told of.

All that shows numbers reads :data:`MEASURES`: cached results, leaderboard, tables, page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch

from lateen.assessment.candidates import Candidate
from lateen.assessment.recipe import MeasureSection
from lateen.assessment.spaces import SpacePair
from lateen.evaluation.labelled import LabelledFeatures, probe_scores, usable_ks, votes
from lateen.features import TextColumn
from lateen.metrics import cycle_knn, mutual_knn
from lateen.metrics.choice import percent
from lateen.metrics.cka import kernel_cka
from lateen.metrics.neighbours import kernel_cknna
from lateen.metrics.retrieval import retrieval_ranks
from lateen.metrics.svcca import mean_correlation


class Scatter(NamedTuple):
    """A plot of a measure against alignment probing, on the page.

    Attributes:
        order: among the plots, the lowest first.
        caption: what a point is.
    """

    order: int
    caption: str


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that says something of encoders.

    Attributes:
        key: in JSON and CSV.
        name: in sentences.
        definition: one line, in which ``{images}``, ``{pairs}``, ``{classes}``, ``{k}`` and
            ``{temperature}`` stand for what it was taken with.
        heading: of its column; without one the leaderboard's table leaves it out.
        scatter: its plot, of a measure that rows of the leaderboard have. Where there is little
            room, the leaderboard has only measures with a plot.
        higher_is_better: whether more of it should go with better alignment.
    """

    key: str
    name: str
    definition: str
    heading: str | None = None
    scatter: Scatter | None = None
    higher_is_better: bool = True
    decimals: ClassVar[int] = 2

    def shown_in(self, results: Mapping[str, Any]) -> bool:
        """Whether an ``assessment.json`` has a number of it."""
        return any(row.get(self.key) is not None for row in results["rows"])


@dataclass(frozen=True, kw_only=True)
class PairMeasure(Measure):
    """Of a pair of encoders, whose spaces it compares.

    Attributes:
        function: the measure; what these features do not allow is a
            :class:`~lateen.errors.LateenError`.
        calibrated: whether it is a similarity, 1 of a space with itself, to be held against those
            of permuted rows.
    """

    function: Callable[[SpacePair], float]
    calibrated: bool = True


@dataclass(frozen=True, kw_only=True)
class VisionMeasure(Measure):
    """Of a vision encoder alone: its accuracy in percent on labelled images.

    Attributes:
        function: from features that are judged, and those that are learned from (without them each
            is judged by the others), to a JSON value.
        accuracies: in that value, by number of neighbours (``None`` where there is no such thing);
            the first ranks.
    """

    function: Callable[[LabelledFeatures, LabelledFeatures | None, MeasureSection], Any]
    accuracies: Callable[[Any], dict[int | None, float]]
    decimals: ClassVar[int] = 1

    def by_k(self, value: Any) -> dict[int | None, float]:
        """The accuracies in what :attr:`function` gave, none in ``None``."""
        return {} if value is None else self.accuracies(value)

    def ranking(self, value: Any) -> float | None:
        """The accuracy that ranks."""
        return next(iter(self.by_k(value).values()), None)


@dataclass(frozen=True, kw_only=True)
class TextMeasure(Measure):
    """Of a text encoder alone.

    Attributes:
        function: the number, if there is one, of a candidate and its captions of the judged images.
    """

    function: Callable[[Candidate, TextColumn], float | None]
    decimals: ClassVar[int] = 1

    def shown_in(self, results: Mapping[str, Any]) -> bool:
        """Whether an ``assessment.json`` has a number of it."""
        return any(encoder.get(self.key) is not None for encoder in results["text"])


def _knn(
    judged: LabelledFeatures, learned: LabelledFeatures | None, settings: MeasureSection
) -> dict[str, float]:
    voters = len(judged) - 1 if learned is None else len(learned)
    ks = usable_ks(settings.knn, voters)
    hits = votes(judged, learned, ks, settings.temperature)
    return {k: percent(right) for k, right in hits.items()}


def _linear_probe(
    judged: LabelledFeatures, learned: LabelledFeatures | None, settings: MeasureSection
) -> dict[str, Any]:
    probe = probe_scores(judged, learned, settings.seed)
    return {"accuracy": probe.accuracy, "c": probe.c}


def caption_ranks(column: TextColumn) -> torch.Tensor | None:
    """Rank, from 1, of the other caption of their image: of the first captions among the second
    ones, then of the second among the first, ``[2 n]`` of the images that have two.

    It tells how well a text encoder knows what captions are about, no image being seen.

    Returns:
        ``None`` where fewer than two images have two captions.
    """
    two = np.flatnonzero(column.counts > 1)
    if len(two) < 2:
        return None
    captions = column.take(two)
    sides = [captions.store[captions.nth(position).rows] for position in (0, 1)]
    first, second = (torch.nn.functional.normalize(side, dim=-1) for side in sides)
    own = torch.arange(len(two))[:, None]
    return torch.cat([retrieval_ranks(a, b, own) for a, b in ((first, second), (second, first))])


def _caption_retrieval(column: TextColumn) -> float | None:
    ranks = caption_ranks(column)
    return None if ranks is None else percent(ranks == 1)


PROBING = "probe"  # what all others are held against
MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        Measure(
            key=PROBING,
            name="alignment probing",
            definition="linear heads trained on frozen features; mean of text → image and image → "
            "text R@10, in percent; interval by resampling the {images} test images",
        ),
        PairMeasure(
            key="cka",
            name="CKA",
            definition="linear centred kernel alignment {pairs}; 1 = the same up to rotation and "
            "scale",
            heading="CKA",
            scatter=Scatter(4, "Similarity of the two kernels, a point for each pair."),
            function=lambda pair: kernel_cka(*pair.kernels, pair.trace, unbiased=False),
        ),
        PairMeasure(
            key="cka_unbiased",
            name="unbiased CKA",
            definition="CKA with the unbiased estimator of HSIC {pairs}; about 0 if unrelated",
            heading="unbiased\nCKA",
            function=lambda pair: kernel_cka(*pair.kernels, pair.trace, unbiased=True),
        ),
        PairMeasure(
            key="mutual_knn",
            name="mutual kNN",
            definition="share of the {k} nearest neighbours (cosine) common to both spaces {pairs}",
            heading="mutual\nkNN",
            scatter=Scatter(3, "Neighbours that both spaces share, a point for each pair."),
            function=lambda pair: mutual_knn(*pair.neighbours),
        ),
        PairMeasure(
            key="cknna",
            name="CKNNA",
            definition="CKA restricted to the {k} nearest neighbours that both spaces share "
            "{pairs}",
            heading="CKNNA",
            function=lambda pair: kernel_cknna(*pair.neighbour_kernels),
        ),
        PairMeasure(
            key="svcca",
            name="SVCCA",
            definition="mean canonical correlation of the leading principal components {pairs}",
            heading="SVCCA",
            function=lambda pair: mean_correlation(pair.components, len(pair)),
        ),
        PairMeasure(
            key="cycle_knn",
            name="cycle kNN",
            definition="share of samples found again by going to the {k} nearest neighbours in one "
            "space and to theirs in the other {pairs}",
            heading="cycle\nkNN",
            function=lambda pair: cycle_knn(*pair.neighbours),
        ),
        VisionMeasure(
            key="knn",
            name="kNN accuracy",
            definition="top-1 accuracy by a weighted vote (cosine, temperature {temperature}) of "
            "the k nearest, {classes}",
            heading="kNN",
            scatter=Scatter(1, "Accuracy of the vision encoder by its nearest labelled images."),
            function=_knn,
            accuracies=lambda by_k: {int(k): accuracy for k, accuracy in by_k.items()},
        ),
        VisionMeasure(
            key="linear_probe",
            name="linear-probe accuracy",
            definition="top-1 accuracy of multinomial logistic regression, C swept, {classes}",
            heading="linear\nprobe",
            scatter=Scatter(2, "Accuracy of a linear classifier on the vision encoder."),
            function=_linear_probe,
            accuracies=lambda fit: {None: fit["accuracy"]},
        ),
        TextMeasure(
            key="score",
            name="given score",
            definition="a figure given for the text encoder, such as its MTEB average; not "
            "measured here",
            heading="given score",
            function=lambda candidate, _: candidate.score,
        ),
        TextMeasure(
            key="caption_retrieval",
            name="caption retrieval",
            definition="share of captions that find the other one of their image first, by cosine; "
            "first against second captions, both ways, of test images that have two, in percent",
            heading="caption\nR@1",
            function=lambda _, column: _caption_retrieval(column),
        ),
    )
}
M = TypeVar("M", bound=Measure)


def measures(*kinds: type[M]) -> list[M]:
    """The measures of these kinds, one kind after the other, in the order of the table."""
    return [row for kind in kinds for row in MEASURES.values() if isinstance(row, kind)]


def measure_name(key: str) -> str:
    """A measure in the words of a sentence."""
    return MEASURES[key].name if key in MEASURES else key


def higher_is_better(key: str) -> bool:
    """Whether more of a measure should go with better alignment."""
    return MEASURES[key].higher_is_better if key in MEASURES else True


def measure_definitions(results: Mapping[str, Any]) -> dict[str, str]:
    """What each measure is that has a number, in one line, with the k and the counts of it."""
    conditions = results["conditions"]
    labelled, classes = (conditions[key] or 0 for key in ("labelled_images", "classes"))
    images = f"{conditions['images']:,}"
    words = {
        "images": images, "pairs": f"on the {images} test pairs", "k": conditions["k"],
        "classes": f"{labelled:,} labelled images of {classes} classes",
        "temperature": conditions.get("measure", {}).get("temperature", 0.07),
    }  # fmt: skip
    return {
        each.name: each.definition.format(**words)
        + ("" if each.higher_is_better else "; lower is better")
        for each in MEASURES.values()
        if each.shown_in(results)
    }
