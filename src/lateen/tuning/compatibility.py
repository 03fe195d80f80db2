"""What is gained and what is risked while a CLIP's image tower is tuned: each checkpoint, measured.

The text side never changes, so that it is encoded once. Each set of images is encoded once for each
checkpoint, whatever is measured on it, and these features are removed after.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data import Dataset
from lateen.evaluation.intervals import paired_difference
from lateen.files import content_key
from lateen.model import AlignedModel
from lateen.progress import log
from lateen.tuning.checks import EvalSection
from lateen.tuning.drift import Embedded, drift_of, paired
from lateen.tuning.measures import (
    CaptionSet,
    ClassSet,
    ImageSet,
    Measured,
    PairSet,
    SetResult,
)

_Set = CaptionSet | ClassSet | PairSet | ImageSet


class Compatibility:
    """Measures candidates against the model that they started as.

    The start is measured first: what is wrong with the data is said before anything is trained.

    Args:
        start: the model before tuning.
        settings: the data.
        images: whose drift to measure where no other images are given; without them, none is.

    Attributes:
        start: the check of the start, as step 0.
        left_out: what is not measured, and why: a sentence each.

    Raises:
        DataError: the data are not there, or of another form.
    """

    def __init__(
        self, start: AlignedModel, settings: EvalSection, images: Dataset | None = None
    ) -> None:
        self._sets = _open_sets(settings, images)
        results = {name: each.measure(start, None) for name, each in self._sets.items()}
        self._measured = _all_measures(results)
        self._embedded = [each.embedded for each in results.values()]
        self._texts = _all_texts(results)
        self.left_out = list(_left_out(settings, self._sets))
        for sentence in self.left_out:
            log.info("not measured: %s", sentence)
        self.start = self._compared(results, 0)

    @property
    def judged(self) -> list[str]:
        """Ids of the images that checks are of."""
        return [sample for each in self._embedded for sample in each.ids]

    def check(self, model: AlignedModel, step: int) -> dict[str, Any]:
        """Measure a candidate.

        Args:
            model: with the start's text side, and an image side of its own.
            step: after which it is.

        Returns:
            JSON-ready: ``step``; ``measures``, by name ``label``, ``value`` (percent; a cosine is a
            cosine), ``interval`` at 95 %, ``n``, ``of`` (images or pairs), ``chance`` and
            ``difference`` from the start (``value``, ``interval`` by paired bootstrap, and ``told``
            whether it is beyond what other images would explain); ``drift``, see
            :func:`lateen.tuning.drift.drift_of`, with ``lost``, how many images of the start have
            no embedding any more; ``left_out``; ``beware``, what the model was trained on of these
            images; ``seconds``.

        Raises:
            DataError: not one image of a set could be embedded.
        """
        began = time.monotonic()
        # Nobody will ask for a checkpoint's features again.
        with tempfile.TemporaryDirectory(prefix="lateen-", ignore_cleanup_errors=True) as folder:
            results = {
                name: each.measure(model, Path(folder, name)) for name, each in self._sets.items()
            }
        check = self._compared(results, step)
        return {**check, "seconds": round(time.monotonic() - began, 2)}

    def _compared(self, results: Mapping[str, SetResult], step: int) -> dict[str, Any]:
        """A check, from what every set says."""
        measures = {
            name: _as_dict(measured, self._measured[name])
            for name, measured in _all_measures(results).items()
        }
        return {
            "step": step,
            "measures": measures,
            "drift": self._drift([each.embedded for each in results.values()], step),
            "left_out": list(self.left_out),
            "beware": [f"{name}: {each.beware}" for name, each in results.items() if each.beware],
        }

    def _drift(self, embedded: list[Embedded], step: int) -> dict[str, Any]:
        """The drift of all sets' images together; nothing where there are no images."""
        if not embedded:
            return {}
        before, after = paired(self._embedded, embedded)
        lost = sum(len(each.ids) for each in self._embedded) - len(before)
        if lost:
            log.warning("step %d: %d evaluation images have no embedding any more", step, lost)
        drift = drift_of(before, after, self._texts)
        if drift["violations"]:
            log.warning(
                "step %d: for %d images a text's cosine changed by more than the bound of METHODS "
                "§2 allows, which is a mistake in lateen: please report it",
                step, drift["violations"],
            )  # fmt: skip
        return {**drift, "lost": lost}


def judged_key(settings: EvalSection) -> str:
    """What the evaluation data are, by content (64 hex digits), wherever they lie.

    Args:
        settings: the data.

    Raises:
        DataError: the data are not there, or of another form.
    """
    return content_key({name: each.key for name, each in _open_sets(settings, None).items()})


def _open_sets(settings: EvalSection, images: Dataset | None) -> dict[str, _Set]:
    """The sets that are given, by name."""
    sets: dict[str, _Set] = {}
    if source := settings.captions or settings.images:
        folder = settings.images if settings.captions else None
        sets["captions"] = CaptionSet(source, folder, settings.column)
    if settings.classes:
        sets["classes"] = ClassSet(settings.classes, settings.k, settings.linear_probe)
    if settings.mmvp:
        sets["mmvp"] = PairSet(settings.mmvp)
    if not sets and images is not None:
        sets["images"] = ImageSet(images)
    return sets


def _left_out(settings: EvalSection, sets: Mapping[str, _Set]) -> Iterator[str]:
    """What is not measured, and why."""
    if "captions" not in sets:
        yield "no retrieval: eval.captions is not given"
    classes = sets.get("classes")
    if not isinstance(classes, ClassSet):
        yield "no zero-shot, nearest neighbours or linear probe: eval.classes is not given"
    else:
        for why in dict.fromkeys(classes.left_out.values()):
            names = [name for name, reason in classes.left_out.items() if reason == why]
            yield f"no {' and '.join(names)}: {why}"
        if not settings.linear_probe:
            yield "no linear probe: eval.linear_probe is false"
    if "mmvp" not in sets:
        yield "no MMVP-VLM: eval.mmvp is not given"


def _all_measures(results: Mapping[str, SetResult]) -> dict[str, Measured]:
    return {name: one for each in results.values() for name, one in each.measures.items()}


def _all_texts(results: Mapping[str, SetResult]) -> Tensor | None:
    texts = [each.texts for each in results.values() if each.texts is not None]
    return torch.cat(texts) if texts else None


def _as_dict(measured: Measured, start: Measured) -> dict[str, Any]:
    """A number beside the start's, JSON-ready."""
    difference: dict[str, Any] = {
        "value": measured.value - start.value, "interval": None, "told": None
    }  # fmt: skip
    same = measured.units == start.units
    if same and measured.drawn is not None and start.drawn is not None:
        change = paired_difference(measured.drawn, start.drawn)
        difference |= {"interval": list(change.interval), "told": change.significant}
    return {
        "label": measured.label,
        "value": measured.value,
        "interval": None if measured.interval is None else list(measured.interval),
        "n": measured.n,
        "of": measured.of,
        "chance": measured.chance,
        "difference": difference,
    }
