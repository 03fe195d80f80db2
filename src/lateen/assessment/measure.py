"""Measures of a pair of frozen encoders: probes, alikeness of spaces, quality (METHODS §1.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lateen.assessment.recipe import MeasureSection
from lateen.errors import DataError, LateenError
from lateen.evaluation.labelled import knn_scores, probe_scores, usable_ks
from lateen.experiment.recipe import Recipe
from lateen.features import Pairs, Store, StoreRows, TextColumn
from lateen.files import content_key, library_versions, read_json, write_json
from lateen.metrics import (
    Features,
    RecallHits,
    cknna,
    cross_ranks,
    cycle_knn,
    mean_recall,
    mutual_knn,
    nearest_neighbours,
    rank_hits,
    retrieval_of_ranks,
)
from lateen.metrics.cka import LinearKernel, kernel_cka
from lateen.metrics.features import check_rows
from lateen.metrics.moments import Moments, cross_product
from lateen.metrics.svcca import mean_correlation, whitening
from lateen.model.model import project_rows
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.loop import CHECKPOINT, train

Measures = dict[str, float | None]
T = TypeVar("T")
_CHUNK = 8192  # rows read at a time
_HELD = 1 << 26  # values of features that are held in memory instead of read for each comparison
_FEWEST = 4  # rows for which all measures are defined
CUTOFF = 10  # the R@K that ranks
Labels = Mapping[str, str]


def cached_json(
    folder: Path, kind: str, decides: Any, work: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """What ``work`` gives, or gave an earlier call for which the same decided the result.

    Args:
        folder: of the results, a JSON file each.
        kind: what is worked out.
        decides: JSON values of everything that decides the result; versions of libraries do, too.
        work: gets a name that goes by all of that.
    """
    key = content_key([kind, decides, library_versions()])
    name = f"{kind}-{key[:16]}"
    path = folder / f"{name}.json"
    if not path.is_file():
        write_json(path, work(name))
    found: dict[str, Any] = read_json(path)
    return found


@dataclass(frozen=True)
class CaptionMeans:
    """For each sample the mean of its captions' features, each L2-normalised first.

    A sample has one place in either space, and its captions are all of it that the text side has.
    """

    column: TextColumn

    def __len__(self) -> int:
        return len(self.column.offsets) - 1

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(len(self))
        offsets = self.column.offsets[start : stop + 1]
        features = self.column.store[self.column.rows[offsets[0] : offsets[-1]]]
        owner = torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(offsets)))
        total = torch.zeros(stop - start, features.shape[1])
        total.index_add_(0, owner, torch.nn.functional.normalize(features, dim=-1))
        mean: Tensor = total / torch.bincount(owner, minlength=stop - start)[:, None]
        return mean


@dataclass(frozen=True)
class Space:
    """One encoder's features of the judged samples, and what every comparison needs of them alone.

    Attributes:
        features: ``[n, d]``.
        neighbours: ``[n, k]`` nearest other samples by cosine, or why there are none.
        kernel: for CKA, or why there is none.
        components: for SVCCA: the leading principal components' whitening ``[d, p]``.
    """

    features: Features
    neighbours: Tensor | LateenError
    kernel: LinearKernel | LateenError
    components: Tensor | LateenError

    @classmethod
    def of(cls, features: Features, settings: MeasureSection) -> Space:
        """The space of ``features``, as far as they allow."""
        if len(features) * features[0:1].shape[1] <= _HELD:
            features = features[0 : len(features)]
        moments = _attempt(lambda: Moments.of(features, _CHUNK))
        return cls(
            features,
            _attempt(lambda: nearest_neighbours(features, settings.k)),
            _attempt(lambda: LinearKernel.of(_found(moments))),
            _attempt(lambda: whitening(_found(moments).product, 0.99, settings.svcca_dim)),
        )


def compare(image: Space, text: Space) -> tuple[Measures, dict[str, str]]:
    """All measures between two spaces, and the reasons for those that are ``None``.

    A measure that these features do not allow (fewer samples than neighbours, features that are all
    the same) must not keep an assessment of a hundred pairs from ending.
    """
    x, y = image.features, text.features
    check_rows(len(x), _FEWEST, "comparing two spaces")
    cross = _attempt(
        lambda: cross_product(x, _found(image.kernel).mean, y, _found(text.kernel).mean, _CHUNK)
    )

    def neighbours() -> tuple[Tensor, Tensor]:
        return _found(image.neighbours), _found(text.neighbours)

    def aligned(unbiased: bool) -> float:
        return kernel_cka(_found(image.kernel), _found(text.kernel), _found(cross), unbiased)

    measures: dict[str, Callable[[], float]] = {
        "cka": lambda: aligned(unbiased=False),
        "cka_unbiased": lambda: aligned(unbiased=True),
        "mutual_knn": lambda: mutual_knn(*neighbours()),
        "cknna": lambda: cknna(x, y, *neighbours()),
        "svcca": lambda: mean_correlation(
            _found(image.components), _found(text.components), _found(cross), len(x)
        ),
        "cycle_knn": lambda: cycle_knn(*neighbours()),
    }
    found = {name: _attempt(measure) for name, measure in measures.items()}
    notes = {name: value.message for name, value in found.items() if isinstance(value, LateenError)}
    return {n: None if isinstance(v, LateenError) else v for n, v in found.items()}, notes


def _attempt(work: Callable[[], T]) -> T | LateenError:
    """What ``work`` gives, or why it cannot be had."""
    try:
        return work()
    except LateenError as error:
        return error


def _found(value: T | LateenError) -> T:
    if isinstance(value, LateenError):
        raise value
    return value


@dataclass(frozen=True)
class Probe:
    """What probing one pair of encoders gave.

    Attributes:
        retrieval: both directions, as :func:`lateen.metrics.retrieval` gives them.
        hits: of every judged image, for intervals.
    """

    retrieval: dict[str, Any]
    hits: RecallHits

    def mean(self, cutoff: int) -> float:
        """R@``cutoff`` in percent, mean of both directions."""
        return mean_recall(self.retrieval, (cutoff,))


def probe(pairs: Pairs, judged: Pairs, recipe: Recipe, folder: Path) -> Probe:
    """Train linear heads on ``pairs`` and judge them on ``judged``; what is done is not done again.

    The judged images choose nothing: the heads of the last step are taken.

    Args:
        pairs: features to train on, with all caption columns as positives.
        judged: features of other images; the first caption column counts.
        recipe: its head and training.
        folder: of all probes; each has a file in it, by content.

    Raises:
        TrainingError: features that nothing can be learned from, or a loss that is not finite.
    """
    settings = [recipe.head.model_dump(mode="json"), recipe.train.model_dump(mode="json")]

    def work(name: str) -> dict[str, Any]:
        heads = _train(pairs, recipe.head, recipe.train, folder / name)
        return _judge(heads, judged)

    found = cached_json(folder, "probe", [pairs.key, judged.key, settings], work)
    return Probe(found["retrieval"], RecallHits(**found["hits"]))


def _train(pairs: Pairs, head: HeadSection, settings: TrainSection, out: Path) -> AlignmentHeads:
    heads = train(pairs, head=head, settings=settings, out=out).heads
    # The numbers are kept, not the heads: a grid of hundreds would fill the disk.
    (out / CHECKPOINT).unlink(missing_ok=True)
    return heads


@torch.no_grad()
def _judge(heads: AlignmentHeads, judged: Pairs) -> dict[str, Any]:
    column = judged.texts[0]
    image = project_rows(heads.embed_image, judged.image, judged.image_rows)
    text = project_rows(heads.embed_text, column.store, column.rows)
    owner = torch.from_numpy(column.owner)
    ranks = cross_ranks(image, text, owner)
    return {"retrieval": retrieval_of_ranks(*ranks), "hits": rank_hits(*ranks, owner).as_dict()}


@dataclass(frozen=True)
class LabelledFeatures:
    """Rows of a store that have a label.

    Attributes:
        features: ``[n, d]``.
        labels: ``[n]`` index of each row's class.
        key: of their content.
    """

    features: StoreRows
    labels: torch.Tensor
    key: str

    @classmethod
    def of(cls, store: Store, labels: Labels, names: list[str]) -> LabelledFeatures:
        """The rows of ``store`` that have ``labels``, in the order of these.

        Folds and ties go by the order of rows, which must not tell encoders apart.

        Args:
            store: that has them all.
            labels: of :func:`shared_labels`.
            names: of the classes.
        """
        row_of = {sample: row for row, sample in enumerate(store.ids)}
        rows = [row_of[sample] for sample in labels]
        found = list(labels.values())
        index_of = {name: index for index, name in enumerate(names)}
        target = torch.tensor([index_of[name] for name in found])
        key = content_key([store.manifest.content, rows, found])
        return cls(StoreRows(store, np.array(rows, dtype=np.int64)), target, key)


def shared_labels(labels: Labels, stores: Sequence[Store]) -> Labels:
    """The labels of the images that every store has: what one encoder could not read leaves for
    all, so that their accuracies can be compared.

    Raises:
        DataError: there is none.
    """
    known = [set(store.ids) for store in stores]
    shared = {sample: labels[sample] for sample in labels if all(sample in ids for ids in known)}
    for store, ids in zip(stores, known, strict=True):
        if not shared and not ids & labels.keys():
            raise DataError(
                f"none of the {len(store)} images in {store.path} has a label: their ids look like "
                f"{store.ids[0]!r}, those with labels like {next(iter(labels), '')!r}",
                "Give labels by the ids of the image stores.",
            )
    if not shared:
        raise DataError(
            f"no image with a label is in all {len(stores)} image stores",
            "Encode the same labelled images with every encoder.",
        )
    return shared


def class_names(*parts: Labels) -> list[str]:
    """The classes of a labelled set, sorted.

    Raises:
        DataError: fewer than two, or a part with other classes than the first.
    """
    names = sorted(set(parts[0].values()))
    if len(names) < 2:
        raise DataError(
            f"the labelled set has {len(names)} classes, and one alone is always right",
            "Give a folder with one subfolder of images for each of at least two classes.",
        )
    for other in parts[1:]:
        unknown = sorted(set(other.values()) - set(names))
        if unknown:
            raise DataError(
                f"the class {unknown[0]!r} of the labelled test part is not in its training part",
                "Give both parts the same class folders.",
            )
    return names


def quality(
    train: LabelledFeatures, test: LabelledFeatures | None, settings: MeasureSection, folder: Path
) -> dict[str, Any]:
    """kNN and linear-probe accuracy in percent; what is done, by content, is not done again.

    Args:
        train: labelled features.
        test: features to be judged; without them all of ``train`` are, by the others.
        settings: numbers of neighbours, temperature, seed.
        folder: of the results.

    Returns:
        JSON-ready: ``knn`` (accuracy by number of neighbours, as text), ``linear_probe`` with its
        ``accuracy`` and ``c``, ``notes`` where one is ``None``.
    """
    conditions = [list(settings.knn), settings.temperature, settings.seed]
    decides = [train.key, test.key if test else None, conditions]
    return cached_json(folder, "quality", decides, lambda _: _measure(train, test, settings))


def _measure(
    train: LabelledFeatures, test: LabelledFeatures | None, settings: MeasureSection
) -> dict[str, Any]:
    result: dict[str, Any] = {"knn": None, "linear_probe": None, "notes": {}}
    judged, learned = (train.features, train.labels), None
    if test is not None:
        judged, learned = (test.features, test.labels), judged
    try:
        ks = usable_ks(settings.knn, len(train.labels) - (test is None))
        result["knn"] = knn_scores(judged, learned, ks, settings.temperature)
    except LateenError as error:
        result["notes"]["knn"] = error.message
    try:
        probe = probe_scores(judged, learned, settings.seed)
        result["linear_probe"] = {"accuracy": probe.accuracy, "c": probe.c}
    except LateenError as error:
        result["notes"]["linear_probe"] = error.message
    return result
