"""What each set of evaluation data says of a model: numbers, and what its images contribute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lateen.data import Dataset, open_dataset
from lateen.data.labels import open_labelled
from lateen.data.samples import no_captions
from lateen.errors import DataError
from lateen.evaluation.cases import prompt_features, score_cases
from lateen.evaluation.features import JudgedImages, find_trained_on, side_features
from lateen.evaluation.intervals import (
    LEVEL,
    Redrawn,
    Statistics,
    drawn_by_key,
    interval,
    redrawn,
    resampled,
    shares,
    units_key,
)
from lateen.evaluation.labelled import (
    FOLDS,
    Probed,
    check_classes,
    open_probed,
    probe_scores,
    train_split,
    usable_ks,
    votes,
)
from lateen.evaluation.task import Result, number, training_note
from lateen.evaluation.tasks.classification import (
    classification_facts,
    classification_statistics,
    embed_classes,
)
from lateen.evaluation.tasks.mmvp import (
    TEMPLATES,
    mmvp_result,
    mmvp_statistics,
    read_mmvp,
    within_pairs,
)
from lateen.evaluation.tasks.retrieval import (
    retrieval_chance,
    retrieval_result,
    retrieval_statistics,
)
from lateen.features import Store, pair
from lateen.files import content_key
from lateen.metrics import class_ranks
from lateen.metrics.choice import percent
from lateen.metrics.resampling import Interval, Tally, percentile_interval
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.report.chance import top_k
from lateen.tuning.drift import Embedded

_CUTOFFS = (1, 5, 10)
_TEMPERATURE = 0.07  # of the votes (METHODS §1.5)
_WAYS = {"text_to_image": "text → image", "image_to_text": "image → text"}


@dataclass(frozen=True)
class Measured:
    """One number of one model.

    Attributes:
        label: what it is, for people.
        value: in percent; a cosine is a cosine.
        interval: at 95 %, over images drawn anew.
        n: of how many.
        of: images or pairs.
        chance: what guessing scores.
        units: hash of what it was measured on, image by image.
        drawn: it in every draw of the images.
    """

    label: str
    value: float
    interval: Interval | None
    n: int
    of: str
    chance: float | None
    units: str
    drawn: Redrawn | None


@dataclass(frozen=True)
class SetResult:
    """What one set says of a model.

    Attributes:
        measures: by name.
        embedded: the set's images with the model's embeddings of them.
        texts: ``[m, dim]`` L2-normalised embeddings of the set's texts, if it has any.
        beware: what the model was trained on of these images, in sentences.
    """

    measures: dict[str, Measured]
    embedded: Embedded
    texts: Tensor | None
    beware: str = ""


class CaptionSet:
    """Images with captions: retrieval both ways.

    The captions are encoded once, by the first model that is measured.

    Args:
        source: of pairs, as ``lateen evaluate retrieval`` takes them.
        images: folder of the images that ``source`` names.
        column: the caption column, the first if not given.

    Raises:
        DataError: there is no such source or column, or it has no captions.
    """

    def __init__(self, source: str, images: str | None, column: str | None) -> None:
        self._dataset = open_dataset(source, images=images, captions=(column,) if column else ())
        columns = (column,) if column else tuple(self._dataset.columns)
        if not columns:
            raise DataError(no_captions(self._dataset), "Give a file that has, as eval.captions.")
        self._column = columns[0]
        self._texts: Store | None = None

    @property
    def key(self) -> str:
        """What the set is, by content (64 hex digits)."""
        return content_key([self._dataset.fingerprint, self._column])

    def measure(self, model: AlignedModel, folder: Path | None) -> SetResult:
        """Retrieval of a model.

        Args:
            model: whose text side is that of the first one measured.
            folder: where to keep the images' features; lateen's cache if not given.
        """
        if self._texts is None:
            self._texts = side_features(model, "text", self._dataset, self._column)
        store = _image_store(model, self._dataset, folder)
        pairs = pair(store, self._texts)
        result = retrieval_result(model, pairs)
        labels = {
            f"{way}.R@{k}": f"{words} R@{k}" for way, words in _WAYS.items() for k in _CUTOFFS
        }
        guesses = {path: retrieval_chance(result, path) for path in labels}
        parts = [_Number(path, label, path, guesses[path]) for path, label in labels.items()]
        mean = sum(guesses.values()) / len(guesses)
        whole = _Number("retrieval", "retrieval", "rsum", mean, scale=1 / len(parts))
        measures = _measured(result, retrieval_statistics, [whole, *parts])
        texts = project_rows(model.project_text, pairs.texts[0].store, pairs.texts[0].rows)
        embedded = _embedded(model, store, np.asarray(pairs.image_rows))
        return SetResult(measures, embedded, texts, training_note(result))


class ClassSet:
    """Labelled images: zero-shot with the usual prompts, nearest neighbours, linear probe.

    Without a part to learn from, each image is classified by all the others, and the probe predicts
    each of five folds by the others.

    Args:
        source: labelled images, as ``lateen evaluate knn`` takes them.
        k: nearest neighbours that vote.
        linear_probe: also the probe.

    Attributes:
        left_out: why a measure is not taken, by name; known after the first model.
    """

    def __init__(self, source: str, k: int, linear_probe: bool) -> None:
        self._source, self._k, self._probe = source, k, linear_probe
        self._classes: Tensor | None = None
        self._first = True
        self.left_out: dict[str, str] = {}

    @property
    def key(self) -> str:
        """What the set is, by content (64 hex digits), with the part that is learned from."""
        judged = open_labelled(self._source)
        learned = train_split(judged.splits, judged.split)
        parts = [judged] if learned is None else [
            judged, open_labelled(self._source, split=learned)
        ]  # fmt: skip
        return content_key(
            [[part.dataset.fingerprint, part.key, part.templates, part.verbatim] for part in parts]
        )

    def measure(self, model: AlignedModel, folder: Path | None) -> SetResult:
        """All measures that the first model could be given.

        Args:
            model: whose text side is that of the first one measured.
            folder: where to keep the images' features; lateen's cache if not given.
        """
        probed = open_probed(model, self._source, {}, None, "both", folder)
        measures: dict[str, Measured] = {}
        for names, take in self._takers(model, probed):
            if any(name in self.left_out for name in names):
                continue
            try:
                measures |= take()
            except DataError as error:
                if not self._first:
                    raise
                self.left_out |= dict.fromkeys(names, error.message)
        self._first = False
        test = probed.test
        seen = find_trained_on(model, JudgedImages.of(test.store, test.rows))
        embedded = _embedded(model, test.store, np.asarray(test.rows))
        return SetResult(measures, embedded, self._classes, training_note({"trained_on": seen}))

    def _takers(
        self, model: AlignedModel, probed: Probed
    ) -> Iterator[tuple[tuple[str, ...], Callable[[], dict[str, Measured]]]]:
        """What is to be measured: names, and what measures them."""
        yield ("zero_shot",), partial(self._zero_shot, model, probed)
        yield ("knn_encoder", "knn_embedding"), partial(self._knn, probed)
        if self._probe:
            names = ("linear_probe_encoder", "linear_probe_embedding")
            yield names, partial(self._linear_probe, probed)

    def _zero_shot(self, model: AlignedModel, probed: Probed) -> dict[str, Measured]:
        labelled, test = probed.test.labelled, probed.test
        if not labelled.named_by:
            raise DataError(f"{labelled.dataset.name} numbers its classes and does not name them")
        if self._classes is None:
            self._classes = embed_classes(
                model, labelled.names, labelled.templates, verbatim=labelled.verbatim
            )
        ranks = class_ranks(test.features["embedding"], self._classes, test.target)
        result = {
            "top1": percent(ranks == 1),
            **classification_facts(ranks, test.target, test.ids),
        }
        chance = top_k(1, len(labelled.names))
        asked = _Number("zero_shot", "zero-shot top-1", "top1", chance)
        return _measured(result, classification_statistics, [asked])

    def _knn(self, probed: Probed) -> dict[str, Measured]:
        check_classes(probed, least=1)
        ks = usable_ks([self._k], probed.voters)
        hits = {
            kind: votes(*probed.of(kind), ks, _TEMPERATURE)[str(self._k)]
            for kind in ("encoder", "embedding")
        }
        return _shares_measured(hits, probed, "knn", f"{self._k}-NN")

    def _linear_probe(self, probed: Probed) -> dict[str, Measured]:
        check_classes(probed, least=2 if probed.train is not None else FOLDS)
        hits = {kind: probe_scores(*probed.of(kind), 0).right for kind in ("encoder", "embedding")}
        return _shares_measured(hits, probed, "linear_probe", "linear probe")


class PairSet:
    """MMVP-VLM: pairs of images that CLIP takes for alike, and how alike they are.

    The statements are encoded once, by the first model that is measured.

    Args:
        source: the folder, as ``lateen evaluate mmvp`` takes it.

    Raises:
        DataError: it is not there, or not of that form.
    """

    def __init__(self, source: str) -> None:
        self._pairs = read_mmvp(source)
        self._texts: Store | None = None

    @property
    def key(self) -> str:
        """What the set is, by content (64 hex digits)."""
        return self._pairs.key

    def measure(self, model: AlignedModel, folder: Path | None) -> SetResult:
        """Pairs solved, and the mean cosine within them.

        Args:
            model: whose text side is that of the first one measured.
            folder: where to keep the images' features; lateen's cache if not given.
        """
        if self._texts is None:
            self._texts = prompt_features(model, self._pairs, templates=TEMPLATES)
        scored = score_cases(
            model, self._pairs, templates=TEMPLATES, cache=folder, texts=self._texts
        )
        cosines = within_pairs(model.project_image, scored.images, scored.cases)
        result = mmvp_result(model, scored, {"model": cosines}, TEMPLATES)
        solved = _Number("mmvp", "MMVP-VLM pairs", "pair_accuracy", result["chance"])
        measures = _measured(result, mmvp_statistics, [solved], of="pairs")
        measures["mmvp_cosine"] = _mean_cosine(cosines, result)
        rows = np.arange(len(scored.images))
        return SetResult(
            measures, _embedded(model, scored.images, rows), None, training_note(result)
        )


class ImageSet:
    """Images alone, of which nothing is measured but the drift.

    Args:
        dataset: the images.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def key(self) -> str:
        """What the set is, by content (64 hex digits)."""
        return self._dataset.fingerprint

    def measure(self, model: AlignedModel, folder: Path | None) -> SetResult:
        """The embeddings.

        Args:
            model: an aligned model.
            folder: where to keep features; lateen's cache if not given.
        """
        store = _image_store(model, self._dataset, folder)
        return SetResult({}, _embedded(model, store, np.arange(len(store))), None)


def _image_store(model: AlignedModel, dataset: Dataset, folder: Path | None) -> Store:
    return side_features(model, "vision", dataset, folder=folder and folder / "images")


def _embedded(model: AlignedModel, store: Store, rows: np.ndarray[Any, Any]) -> Embedded:
    raw = project_rows(partial(model.project_image, normalize=False), store, rows)
    return Embedded([store.ids[int(row)] for row in rows], raw)


def _shares_measured(
    hits: Mapping[str, Any], probed: Probed, name: str, label: str
) -> dict[str, Measured]:
    """Accuracies on encoder features and on embeddings, of which images are right."""
    values = {kind: percent(torch.as_tensor(right)) for kind, right in hits.items()}
    result = {**values, **resampled(shares, hits, probed.test.ids)}
    chance = top_k(1, len(probed.test.labelled.names))
    asked = [_Number(f"{name}_{kind}", f"{label}, {kind}", kind, chance) for kind in hits]
    return _measured(result, shares, asked)


class _Number(NamedTuple):
    """A number of a task's result that is a measure.

    Attributes:
        name: of the measure.
        label: what it is, for people.
        path: where it is in the result.
        chance: what guessing scores.
        scale: of value and interval; ``chance`` has it already.
    """

    name: str
    label: str
    path: str
    chance: float | None
    scale: float = 1.0


def _measured(
    result: Result, statistics: Callable[[Mapping[str, Any]], Statistics],
    numbers: Sequence[_Number], *, of: str = "images",
) -> dict[str, Measured]:  # fmt: skip
    """Numbers of a task's result, by the names of the measures.

    Args:
        result: of the task, with what each image contributes.
        statistics: the task's own.
        numbers: those that are asked for; the others are not drawn again.
        of: what was counted.
    """
    paths = [each.path for each in numbers]

    def asked_for(arrays: Mapping[str, Any]) -> Statistics:
        every = statistics(arrays)
        return {path: every[path] for path in paths}

    drawn = redrawn(result, asked_for) or {}
    return {each.name: _one_measured(result, each, drawn.get(each.path), of) for each in numbers}


def _one_measured(result: Result, asked: _Number, drawn: Redrawn | None, of: str) -> Measured:
    scale = asked.scale
    value, limits = number(result, asked.path), interval(result, asked.path)
    if scale != 1 and drawn is not None:
        drawn = Redrawn(drawn.scores * scale, drawn.by_unit)
    return Measured(
        asked.label,
        scale * (value if value is not None else float("nan")),
        None if limits is None else (scale * limits[0], scale * limits[1]),
        int(result["n"]), of, asked.chance, units_key(result), drawn,
    )  # fmt: skip


def _mean_cosine(cosines: Tensor, result: Result) -> Measured:
    """The mean cosine of the images of a pair ``[pairs]``, its interval over pairs."""
    values, pairs, key = cosines.double().numpy(), len(cosines), units_key(result)
    tally = Tally(np.arange(pairs), values, scale=1.0)
    scores = drawn_by_key({"cosine": tally}, pairs, key)["cosine"]
    return Measured(
        "cosine within MMVP-VLM's pairs", float(values.mean()), percentile_interval(scores, LEVEL),
        pairs, "pairs", None, key, Redrawn(scores, tally.by_unit(pairs)),
    )  # fmt: skip
